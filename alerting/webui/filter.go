package webui

import (
	"bytes"
	"errors"
	"net/netip"
	"net/url"
	"strings"

	"sallyport/alerting"
	"sallyport/allowlists"
)

// The verdicts that a filter may ask for.
const (
	verdictRefused = "refused" // by us
	verdictAllowed = "allowed"
	verdictAudited = "audited" // allowed by audit, which enforce would refuse
)

// A filter chooses what the page shows. Its empty fields choose everything.
type filter struct {
	Pool    string
	Client  string // as typed: an address or a prefix
	Verdict string
	Host    string // part of a name or an address, in lower case
	Faults  []string
	clients netip.Prefix
}

// maxFilter bounds one field, in bytes.
const maxFilter = 256

// parseFilter reads the query of a page. What cannot be read is in Faults, and
// chooses nothing.
func parseFilter(query url.Values) filter {
	field := func(name string) string {
		text := strings.TrimSpace(query.Get(name))
		return text[:min(len(text), maxFilter)]
	}
	f := filter{Pool: field("pool"), Client: field("client"), Verdict: field("verdict"), Host: strings.ToLower(field("host"))}
	switch f.Verdict {
	case "", verdictRefused, verdictAllowed, verdictAudited:
	default:
		f.Faults = append(f.Faults, "The verdict is refused, allowed or audited.")
	}
	if f.Client != "" {
		var err error
		if f.clients, err = parseClients(f.Client); err != nil {
			f.Faults = append(f.Faults, err.Error())
		}
	}
	return f
}

// parseClients reads an address or a prefix.
func parseClients(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		addr = addr.WithZone("").Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, errors.New("A client is an address such as 10.20.0.7, or a prefix such as 10.20.0.0/24.")
	}
	return prefix.Masked(), nil
}

// Set reports whether the filter leaves anything out.
func (f filter) Set() bool { return f.Pool+f.Client+f.Verdict+f.Host != "" }

// Query is the filter as it stands in an address, without its question mark.
func (f *filter) Query() string {
	query := url.Values{}
	for name, value := range map[string]string{"pool": f.Pool, "client": f.Client, "verdict": f.Verdict, "host": f.Host} {
		if value != "" {
			query.Set(name, value)
		}
	}
	return query.Encode()
}

// matches reports whether an event is one that the page lists, and is chosen.
func (f *filter) matches(e *alerting.Event) bool {
	if !listed(e) || len(f.Faults) > 0 {
		return false
	}
	switch {
	case f.Pool != "" && e.Pool != f.Pool:
		return false
	case f.Verdict != "" && verdictOf(e) != f.Verdict:
		return false
	case f.Client != "" && !f.clients.Contains(e.Client):
		return false
	}
	return f.Host == "" || hasPart(e.Host, f.Host) || hasPart(e.Name, f.Host) || hasPart(e.SNI, f.Host) || e.IP.IsValid() && strings.Contains(e.IP.String(), f.Host)
}

func hasPart(name, part string) bool { return strings.Contains(strings.ToLower(name), part) }

// listed reports whether the page lists an event: connections, and questions
// that are refused or would be.
func listed(e *alerting.Event) bool {
	switch e.Kind {
	case alerting.KindConn:
		return true
	case alerting.KindDNS:
		return verdictOf(e) != verdictAllowed
	default:
		return false
	}
}

// verdictOf names what became of a question or a connection.
func verdictOf(e *alerting.Event) string {
	switch {
	case e.Refused():
		return verdictRefused
	case e.Reason == allowlists.AllowedByAudit:
		return verdictAudited
	default:
		return verdictAllowed
	}
}

// The parts of a line that say what it may be; text of a job cannot hold them, as
// its quotes are escaped.
var (
	connLine    = []byte(`"kind":"conn"`)
	alertLine   = []byte(`"kind":"alert"`)
	deniedLine  = []byte(`"verdict":"deny"`)
	auditedLine = []byte(`"reason":"allowed-by-audit"`)
)

// lineRefused reports whether a line may be of something refused, now or by enforce.
func lineRefused(line []byte) bool {
	return bytes.Contains(line, deniedLine) || bytes.Contains(line, auditedLine)
}

// lineListed reports whether a line may be of an event that is listed.
func lineListed(line []byte) bool {
	return !bytes.Contains(line, alertLine) && (bytes.Contains(line, connLine) || lineRefused(line))
}
