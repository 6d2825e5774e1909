package proxy

import (
	"net/http"
	"strings"
)

// hopByHop are the fields that end at each hop, RFC 9110 section 7.6.1, with
// those that carry a proxy's credentials, and the settings of an HTTP/2
// upgrade. Upgrade is put back by those who know it may go on. The keys are as
// http.Header has them.
var hopByHop = map[string]bool{
	"Connection": true, "Proxy-Connection": true, "Keep-Alive": true, "Te": true, "Trailer": true, "Transfer-Encoding": true,
	"Upgrade": true, "Proxy-Authorization": true, "Proxy-Authenticate": true, "Proxy-Authentication-Info": true, "Http2-Settings": true,
}

// stripHopByHop removes what ends at this hop: the fields above, and every
// field that Connection or Proxy-Connection names.
func stripHopByHop(fields http.Header) {
	for _, lister := range [...]string{"Connection", "Proxy-Connection"} {
		for _, value := range fields[lister] {
			for name := range strings.SplitSeq(value, ",") {
				fields.Del(strings.Trim(name, " \t"))
			}
		}
	}
	for name := range fields {
		if hopByHop[name] {
			delete(fields, name)
		}
	}
}

// upgradeWanted gives the protocols that a client asks to switch to, as one
// Upgrade value, without those of HTTP itself: h2c would hide every later
// request from us. It gives "" where nothing is left, or Connection does not
// say that Upgrade is meant for us. Call it before stripHopByHop.
func upgradeWanted(fields http.Header) string {
	if !names(fields["Connection"], "upgrade") {
		return ""
	}
	var kept []string
	for _, value := range fields["Upgrade"] {
		for _, protocol := range strings.Split(value, ",") {
			protocol = strings.Trim(protocol, " \t")
			name, _, _ := strings.Cut(strings.ToLower(protocol), "/")
			if name != "" && name != "http" && !strings.HasPrefix(name, "h2") && !strings.HasPrefix(name, "h3") {
				kept = append(kept, protocol)
			}
		}
	}
	return strings.Join(kept, ", ")
}

// names reports whether a list field holds an element, in any case.
func names(values []string, element string) bool {
	for _, value := range values {
		for _, have := range strings.Split(value, ",") {
			if strings.EqualFold(strings.Trim(have, " \t"), element) {
				return true
			}
		}
	}
	return false
}
