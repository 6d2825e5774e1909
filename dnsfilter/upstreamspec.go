package dnsfilter

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"sallyport/allowlists"
)

// The schemes of an upstream; a bare address is schemeUDP.
const (
	schemeUDP   = "udp" // UDP, and TCP where an answer is cut
	schemeTCP   = "tcp"
	schemeTLS   = "tls"   // RFC 7858
	schemeHTTPS = "https" // RFC 8484
	system      = "system"
)

// upstreamSpec is one parsed upstream other than "system".
type upstreamSpec struct {
	scheme string
	addr   netip.AddrPort // for https with a host name only the port is set
	pin    string         // tls: the name behind '#', lower case; empty: the address
	url    *url.URL       // https only
}

// name is how events and metrics call the upstream. A DoH path can identify the
// subscriber, so only the host of a URL shows.
func (s upstreamSpec) name() string {
	switch s.scheme {
	case schemeUDP:
		return s.addr.String()
	case schemeHTTPS:
		return "https://" + s.url.Host
	}
	name := s.scheme + "://" + s.addr.String()
	if s.pin != "" {
		name += "#" + s.pin
	}
	return name
}

// key tells specs apart. It holds the whole of a URL, and is for no eyes.
func (s upstreamSpec) key() string {
	if s.url == nil { // printed all the same, it would be a fault of memory that fmt recovers from
		return s.name()
	}
	return s.name() + " " + s.url.String()
}

// tlsName is what the server's certificate must be good for.
func (s upstreamSpec) tlsName() string {
	if s.pin != "" {
		return s.pin
	}
	if s.addr.Addr().IsValid() {
		return s.addr.Addr().WithZone("").String()
	}
	return s.url.Hostname()
}

// named reports whether the upstream's address must be asked for first.
func (s upstreamSpec) named() bool { return !s.addr.Addr().IsValid() }

// CheckUpstreams checks the forms of dns.upstreams without touching anything
// but the texts. The error says what would be right, and quotes no more of an
// https URL than its host.
func CheckUpstreams(texts []string) error {
	_, _, err := parseUpstreams(texts)
	return err
}

// parseUpstreams parses every form; systemAt is the index at which the system's
// servers belong, -1 if "system" is not listed.
func parseUpstreams(texts []string) (specs []upstreamSpec, systemAt int, err error) {
	systemAt = -1
	if len(texts) == 0 {
		return nil, systemAt, errors.New(`no upstream is listed; list "system" or the address of a resolver, such as 10.0.0.2`)
	}
	if len(texts) > maxUpstreams {
		return nil, systemAt, fmt.Errorf("%d upstreams are listed; at most %d are asked", len(texts), maxUpstreams)
	}
	plain := false
	for _, text := range texts {
		if text == system {
			if systemAt >= 0 {
				return nil, systemAt, errors.New(`upstream "system" is listed twice; list it once`)
			}
			systemAt, plain = len(specs), true
			continue
		}
		spec, err := parseUpstream(text)
		if err != nil {
			return nil, systemAt, err
		}
		plain = plain || !spec.named()
		specs = append(specs, spec)
	}
	for _, spec := range specs {
		if spec.named() && !plain {
			return nil, systemAt, fmt.Errorf("upstream %s has a name and nobody to ask for its address; write the address, or list a resolver by its address as well", spec.name())
		}
	}
	return specs, systemAt, nil
}

// parseUpstream parses one form other than "system".
func parseUpstream(text string) (upstreamSpec, error) {
	scheme, rest, found := strings.Cut(text, "://")
	if !found {
		scheme, rest = schemeUDP, text
	}
	spec := upstreamSpec{scheme: scheme}
	var err error
	switch scheme {
	case schemeUDP, schemeTCP:
		spec.addr, err = parseServer(rest, dnsPort)
	case schemeTLS:
		address, pin, pinned := strings.Cut(rest, "#")
		if pinned {
			host, bad := allowlists.ParseHost(pin)
			if bad != nil {
				return spec, fmt.Errorf("upstream %q: %q is no host name; behind the # comes the name of the server's certificate", text, pin)
			}
			spec.pin = host.String()
		}
		spec.addr, err = parseServer(address, 853)
	case schemeHTTPS:
		return parseHTTPS(text)
	default:
		return spec, fmt.Errorf("upstream %q has the unknown scheme %q; legal are udp, tcp, tls and https", withoutSecrets(text), scheme)
	}
	if err != nil {
		return spec, fmt.Errorf("upstream %q: %w", text, err)
	}
	return spec, nil
}

// parseServer parses "addr", "v4:port" or "[v6]:port". The error is clear as it is.
func parseServer(text string, port uint16) (netip.AddrPort, error) {
	hint := fmt.Errorf("write the server's address, such as 10.0.0.2, 10.0.0.2:%d or [fd00::2]:%d", port, port)
	bare := strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")
	addr, err := netip.ParseAddr(bare)
	if err != nil || (bare != text && addr.Is4()) {
		host, number, err := net.SplitHostPort(text)
		if err != nil {
			return netip.AddrPort{}, hint
		}
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil || n == 0 {
			return netip.AddrPort{}, fmt.Errorf("port %q is out of range; ports are 1 to 65535", number)
		}
		port = uint16(n)
		if addr, err = netip.ParseAddr(host); err != nil {
			return netip.AddrPort{}, hint
		}
	}
	if addr.IsUnspecified() || addr.IsMulticast() {
		return netip.AddrPort{}, fmt.Errorf("nobody answers at %s; %w", addr, hint)
	}
	return netip.AddrPortFrom(addr.Unmap(), port), nil
}

// parseHTTPS parses a DoH URL.
func parseHTTPS(text string) (upstreamSpec, error) {
	const legal = "write https://HOST/PATH, such as https://dns.example/dns-query"
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || strings.ContainsAny(text, "{}") {
		return upstreamSpec{}, fmt.Errorf("upstream %q is no URL; %s", withoutSecrets(text), legal)
	}
	if u.User != nil || u.Fragment != "" {
		return upstreamSpec{}, fmt.Errorf("upstream %q must have neither a user nor a fragment; %s", withoutSecrets(text), legal)
	}
	spec := upstreamSpec{scheme: schemeHTTPS, url: u}
	port := uint64(443)
	if u.Port() != "" {
		if port, err = strconv.ParseUint(u.Port(), 10, 16); err != nil || port == 0 {
			return upstreamSpec{}, fmt.Errorf("upstream %q: port %q is out of range; ports are 1 to 65535", withoutSecrets(text), u.Port())
		}
	}
	addr, err := netip.ParseAddr(u.Hostname())
	if err != nil {
		host, bad := allowlists.ParseHost(u.Hostname())
		if bad != nil {
			return upstreamSpec{}, fmt.Errorf("upstream %q: %q is no host name; %s", withoutSecrets(text), u.Hostname(), legal)
		}
		if u.Host = host.String(); port != 443 {
			u.Host = net.JoinHostPort(u.Host, strconv.FormatUint(port, 10))
		}
	} else if addr.IsUnspecified() || addr.IsMulticast() {
		return upstreamSpec{}, fmt.Errorf("upstream %q: nobody answers at %s; %s", withoutSecrets(text), addr, legal)
	}
	spec.addr = netip.AddrPortFrom(addr.Unmap(), uint16(port))
	if u.Path == "" {
		u.Path = "/dns-query"
	}
	return spec, nil
}

// withoutSecrets cuts a text that may be a URL to its scheme and host.
func withoutSecrets(text string) string {
	scheme, rest, found := strings.Cut(text, "://")
	if !found {
		return clip(text)
	}
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		rest = rest[:i]
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = rest[i+1:]
	}
	return clip(scheme + "://" + rest)
}
