package allowlists

import (
	"net"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"sallyport/allowlists/diag"
)

// The kinds of what sinks of alerts need besides secrets.
var clockKind, docsLinkKind, eventLinkKind, syslogKind *kind

func init() {
	clockKind = &kind{"a time of day such as 09:00", parseClock}
	docsLinkKind = &kind{"an http or https URL with {alert}", parseLink("{alert}")}
	eventLinkKind = &kind{"an http or https URL with {id}", parseLink("{id}")}
	syslogKind = &kind{"an address such as tcp://host:601", parseSyslog}
}

// parseClock reads a time of day, "15:04".
func parseClock(l *loader, k *key, n *diag.Node) (any, bool) {
	text, ok := l.word(k, n)
	if !ok || text == "" {
		return TimeOfDay{}, ok
	}
	at, err := time.Parse("15:04", text)
	if err != nil || at.Format("15:04") != text {
		l.report.Errorf(n.Place, "%s %q is no time of day; write hours and minutes in UTC, such as \"09:00\"", k.label(), short(text))
		return nil, false
	}
	return TimeOfDay{true, time.Duration(at.Hour())*time.Hour + time.Duration(at.Minute())*time.Minute}, true
}

// maxLinkBytes bounds the template of a link.
const maxLinkBytes = 1024

// parseLink makes a reader of a link's template, whose placeholder may stand
// anywhere behind the host.
func parseLink(mark string) func(*loader, *key, *diag.Node) (any, bool) {
	return func(l *loader, k *key, n *diag.Node) (any, bool) {
		text, ok := l.scalar(k, n)
		if !ok || text == "" {
			return text, ok
		}
		return text, l.checkLink(k, mark, text, n.Place)
	}
}

// checkLink holds the template of a link against what it may be.
func (l *loader) checkLink(k *key, mark, text string, at diag.Place) bool {
	filled := strings.ReplaceAll(text, mark, "x")
	u, err := url.Parse(filled)
	switch {
	case err != nil, u.Scheme != "https" && u.Scheme != "http", u.Hostname() == "", strings.ContainsFunc(filled, notInURL):
		l.report.Errorf(at, "%s is no URL; it begins with https:// and a host", k.label())
	case len(text) > maxLinkBytes:
		l.report.Errorf(at, "%s is longer than %d bytes; shorten it", k.label(), maxLinkBytes)
	case strings.ContainsAny(filled, "{}"):
		l.report.Errorf(at, "%s holds another placeholder than %s; that is the only one it takes", k.label(), mark)
	case u.User != nil:
		l.report.Errorf(at, "%s holds a user or password, which everybody would read; remove it", k.label())
	case !strings.HasPrefix(text, u.Scheme+"://"+u.Host):
		l.report.Errorf(at, "%s has %s in its host; put it behind the host", k.label(), mark)
	default:
		return true
	}
	return false
}

// notInURL reports whether a character may not stand in a link that is sent.
func notInURL(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune("<>\"`|", r) }

// syslogPorts are the ports where syslog is heard, by scheme (RFC 5426, 6587 and 5425).
var syslogPorts = map[string]string{"udp": "514", "tcp": "601", "tls": "6514"}

// parseSyslog reads an address of a syslog receiver and adds the port.
func parseSyslog(l *loader, k *key, n *diag.Node) (any, bool) {
	text, ok := l.scalar(k, n)
	if !ok || text == "" {
		return text, ok
	}
	if file, local := strings.CutPrefix(text, "unix:"); local {
		file = "/" + strings.TrimLeft(file, "/")
		if file == "/" || strings.ContainsAny(file, "\x00\r\n") {
			l.report.Errorf(n.Place, "%s names no socket; write unix:/dev/log", k.label())
			return nil, false
		}
		return "unix:" + path.Clean(file), true
	}
	u, err := url.Parse(text)
	if err != nil || syslogPorts[u.Scheme] == "" || u.Hostname() == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		l.report.Errorf(n.Place, "%s is no address of a syslog receiver; write udp://, tcp:// or tls:// with host and port, or unix:/dev/log", k.label())
		return nil, false
	}
	port := orElse(u.Port(), syslogPorts[u.Scheme])
	if number, err := strconv.Atoi(port); err != nil || number < 1 || number > 65535 {
		l.report.Errorf(n.Place, "port %s is out of range; ports are 1 to 65535", short(port))
		return nil, false
	}
	return u.Scheme + "://" + net.JoinHostPort(u.Hostname(), port), true
}

// checkSinks holds the keys of sinks against each other, and secrets against
// what can be sent.
func (l *loader) checkSinks(v values) {
	alerts := &l.settings.Alerts
	if at := v["alerts.syslog.ca_file"]; alerts.Syslog.CAFile != "" && !strings.HasPrefix(alerts.Syslog.Address, "tls://") {
		l.report.Errorf(at.at(), "ca_file is given, but address is not tls://; remove one or change the other")
	}
	if at := v["alerts.alertmanager.token"]; alerts.Alertmanager.Token != "" && strings.ContainsFunc(alerts.Alertmanager.Token, func(r rune) bool { return r < '!' || r > '~' }) {
		l.report.Errorf(at.at(), "token holds a character that no HTTP header takes; it is not shown as it is a secret")
	}
}
