package allowlists

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

// A Target is where a connection wants to go: a name or an address, and a
// port. Exactly one of Host and Addr is set.
type Target struct {
	Host Host
	Addr netip.Addr // unmapped only if it was written so; never with a zone
	Port uint16
}

// String gives "host:port", with brackets around an IPv6 address.
func (t Target) String() string {
	if t.Addr.IsValid() {
		return netip.AddrPortFrom(t.Addr, t.Port).String()
	}
	return t.Host.String() + ":" + strconv.Itoa(int(t.Port))
}

var (
	errPort     = errors.New("the port is not a number from 1 to 65535")
	errPortNone = errors.New("the port is missing")
	errBrackets = errors.New("brackets go around an IPv6 address only, and an IPv6 address needs them")
)

// ParseTarget reads "host:port", as in a CONNECT request or a Host header
// (RFC 9110 section 4.2). Without a port it takes defaultPort, and where that
// is 0 the port is mandatory. The error is always a *DeniedError with the
// reason bad-host or bad-request.
func ParseTarget(authority string, defaultPort uint16) (Target, error) {
	host, port, bracketed, err := splitAuthority(authority)
	if err != nil {
		return Target{}, denied(BadHost, err)
	}
	t := Target{Port: defaultPort}
	if port != "" {
		if t.Port, err = parsePort(port[1:]); err != nil {
			return Target{}, denied(BadRequest, err)
		}
	}
	if t.Port == 0 {
		return Target{}, denied(BadRequest, errPortNone)
	}
	addr, err := netip.ParseAddr(host)
	switch {
	case err == nil && addr.Is6() == bracketed && addr.Zone() == "":
		t.Addr = addr
	case err == nil || bracketed:
		return Target{}, denied(BadHost, errBrackets)
	default:
		if t.Host, err = ParseHost(host); err != nil {
			return Target{}, denied(BadHost, err)
		}
	}
	return t, nil
}

// splitAuthority cuts an authority into its host, without brackets, and its
// port with the colon before it, "" if there is none.
func splitAuthority(authority string) (host, port string, bracketed bool, err error) {
	if inside, ok := strings.CutPrefix(authority, "["); ok {
		host, port, ok = strings.Cut(inside, "]")
		if !ok || port != "" && port[0] != ':' {
			return "", "", false, errBrackets
		}
		return host, port, true, nil
	}
	if strings.Count(authority, ":") > 1 {
		return "", "", false, errBrackets
	}
	if i := strings.IndexByte(authority, ':'); i >= 0 {
		return authority[:i], authority[i:], false, nil
	}
	return authority, "", false, nil
}

// parsePort reads a port in its one spelling: digits, no sign, no leading zero.
func parsePort(text string) (uint16, error) {
	if text == "" || len(text) > 5 || text[0] == '0' || strings.Trim(text, "0123456789") != "" {
		return 0, errPort
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0, errPort
	}
	return uint16(n), nil
}

func denied(reason Reason, err error) *DeniedError {
	return &DeniedError{Decision: Decision{Reason: reason}, Err: err}
}
