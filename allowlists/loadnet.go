package allowlists

import (
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"

	"sallyport/allowlists/diag"
)

// The kinds of network addresses.
var listenKind, autoListenKind, controlKind, upstreamsKind *kind

func init() {
	listenKind = &kind{"an address such as 127.0.0.1:3128, or a list of them", parseListen}
	autoListenKind = &kind{"auto, an address such as 127.0.0.1:3129, or a list of addresses", parseAutoListen}
	controlKind = &kind{"unix:/path or an address such as 127.0.0.1:9181", parseControl}
	upstreamsKind = &kind{"a list of system, addresses and udp://, tcp://, tls:// or https:// URLs", parseUpstreams}
}

// parseListen reads one address or a list; "" is none.
func parseListen(l *loader, k *key, n *diag.Node) (any, bool) {
	switch {
	case n.Kind == diag.Text && n.Text == "":
		return []string{}, true
	case n.Kind == diag.Text:
		addr, ok := l.listenAddr(n)
		return []string{addr}, ok
	}
	return anyOK(items(l, k, n, func(item *diag.Node) (string, bool) {
		if _, ok := l.itemText(k, item); !ok {
			return "", false
		}
		return l.listenAddr(item)
	}))
}

func parseAutoListen(l *loader, k *key, n *diag.Node) (any, bool) {
	if n.Kind == diag.Text && n.Text == "auto" {
		return []string{"auto"}, true
	}
	return parseListen(l, k, n)
}

// listenAddr reads an address to bind: an IP address, never a name, so that
// exactly what is written is bound.
func (l *loader) listenAddr(n *diag.Node) (string, bool) {
	host, port, ok := cutPort(n.Text)
	if !ok {
		l.report.Errorf(n.Place, "%q has no port; write an address and a port, such as 127.0.0.1:3128", short(n.Text))
		return "", false
	}
	number, ok := l.port(port, n.At(len(n.Text)-len(port)))
	if !ok {
		return "", false
	}
	if host == "" {
		l.report.Errorf(n.Place, "%q has no address; write 0.0.0.0:%d for every IPv4 address, or [::]:%d for IPv4 and IPv6", n.Text, number, number)
		return "", false
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if err != nil || addr.Is6() != strings.HasPrefix(host, "[") {
		l.report.Errorf(n.Place, "%q is no address to listen at; write an IP address and a port, such as 127.0.0.1:3128 or [::1]:3128", short(n.Text))
		return "", false
	}
	return netip.AddrPortFrom(addr, number).String(), true
}

// cutPort cuts "host:port" at its last colon; without a colon outside of
// brackets ok is false.
func cutPort(text string) (host, port string, ok bool) {
	i := strings.LastIndexByte(text, ':')
	if i < 0 || i < strings.LastIndexByte(text, ']') {
		return text, "", false
	}
	return text[:i], text[i+1:], true
}

func parseControl(l *loader, k *key, n *diag.Node) (any, bool) {
	text, ok := l.scalar(k, n)
	if !ok || text == "" {
		return text, ok
	}
	if strings.HasPrefix(text, "/") {
		l.report.Errorf(n.Place, "%q is a path; write unix:%s for a socket there", short(text), short(text))
		return nil, false
	}
	if path, unix := strings.CutPrefix(text, "unix:"); unix {
		if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) || len(path) > 100 {
			l.report.Errorf(n.Place, "%q is no path for a socket; write unix: and an absolute path of at most 100 bytes, such as unix:/run/sallyport/control.sock", short(text))
			return nil, false
		}
		return text, true
	}
	return anyOK(l.listenAddr(n))
}

func parseUpstreams(l *loader, k *key, n *diag.Node) (any, bool) {
	list, ok := items(l, k, n, func(item *diag.Node) (string, bool) {
		text, ok := l.itemText(k, item)
		if !ok {
			return "", false
		}
		upstream, err := readUpstream(text)
		if err != nil {
			l.report.Errorf(item.Place, "%s", err)
			return "", false
		}
		return upstream, true
	})
	if ok && len(list) == 0 {
		l.report.Errorf(n.Place, "upstreams is empty, so no name could be resolved; name one, or system")
		return nil, false
	}
	return list, ok
}

// readUpstream checks one upstream. The error is a finished sentence; it
// does not repeat what may hold a credential.
func readUpstream(text string) (string, error) {
	scheme, rest, isURL := strings.Cut(text, "://")
	if !isURL {
		if text == "system" {
			return text, nil
		}
		if _, err := upstreamAddr(text); err != nil {
			return "", fmt.Errorf("%q is no upstream; write system, an IP address, or a URL such as tls://192.0.2.1:853#dns.example", short(text))
		}
		return text, nil
	}
	switch scheme {
	case "udp", "tcp":
		if _, err := upstreamAddr(rest); err != nil {
			return "", fmt.Errorf("the upstream names no IP address; write %s://192.0.2.1 or %s://192.0.2.1:53", scheme, scheme)
		}
	case "tls":
		addr, name, _ := strings.Cut(rest, "#")
		if _, err := upstreamAddr(addr); err != nil {
			return "", fmt.Errorf("the upstream names no IP address; write tls://192.0.2.1:853#dns.example")
		}
		if _, err := ParseHost(name); err != nil {
			return "", fmt.Errorf("the upstream lacks the name that its certificate must have; write tls://%s#dns.example", addr)
		}
	case "https":
		u, err := url.Parse(text)
		if err != nil || u.Hostname() == "" || u.Fragment != "" {
			return "", fmt.Errorf("the upstream is no URL of a resolver; write one such as https://dns.example/dns-query")
		}
		if u.User != nil {
			return "", fmt.Errorf("the upstream's URL holds a user or password; remove it")
		}
	default:
		return "", fmt.Errorf("upstreams cannot begin with %q; it takes udp://, tcp://, tls:// or https://", short(scheme)+"://")
	}
	return text, nil
}

// upstreamAddr reads an IP address with or without a port.
func upstreamAddr(text string) (netip.Addr, error) {
	if addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")); err == nil {
		return addr, nil
	}
	ap, err := netip.ParseAddrPort(text)
	if err == nil && ap.Port() == 0 {
		err = errPort
	}
	return ap.Addr(), err
}

// A listener is one address that the configuration asks to bind.
type listener struct {
	key string // "listen.proxy", or "listen.proxy of pool x"
	at  diag.Place
}

// listens remembers the addresses of one key, and reports those that another
// key has already. A zero place stands for a default.
func (l *loader) listens(name string, s setting) []string {
	addrs, _ := s.value.([]string)
	for _, addr := range addrs {
		if addr == "auto" {
			continue
		}
		other, taken := l.listeners[addr]
		if !taken {
			l.listeners[addr] = listener{name, s.at()}
			continue
		}
		at, rival := s.at(), other.key
		if s.node == nil {
			at, rival = other.at, name
		}
		if rival == name && other.key == name {
			l.report.Errorf(at, "%s has %s twice; keep one of them", name, addr)
		} else {
			l.report.Errorf(at, "%s is the address of %s too; give each its own", addr, rival)
		}
	}
	return addrs
}
