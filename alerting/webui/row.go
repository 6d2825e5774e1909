package webui

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"sallyport/alerting"
	"sallyport/allowlists"
)

// A row is a question or a connection as the list shows it: text only.
type row struct {
	ID      string `json:"id"`
	Time    string `json:"time"`  // RFC 3339
	Clock   string `json:"clock"` // of the day, in UTC
	Verdict string `json:"verdict"`
	Word    string `json:"word"` // for the verdict
	What    string `json:"what"` // the destination
	Pool    string `json:"pool"`
	Client  string `json:"client"`
	Reason  string `json:"reason"`
	Rule    string `json:"rule"`
	State   string `json:"state"`
	// Over marks the end of a connection, whose row may be there already.
	Over bool `json:"over"`
}

// verdictWords are the verdicts as a person reads them.
var verdictWords = map[string]string{verdictRefused: "refused", verdictAllowed: "allowed", verdictAudited: "audit: would refuse"}

// rowOf is the row of an event that is listed.
func rowOf(e *alerting.Event) row {
	verdict := verdictOf(e)
	return row{
		ID: e.ID, Time: e.Time.Format(time.RFC3339Nano), Clock: e.Time.UTC().Format(time.TimeOnly), Verdict: verdict, Word: verdictWords[verdict],
		What: clipped(destinationOf(e)), Pool: e.Pool, Client: addrText(e.Client), Reason: e.Cause().String(), Rule: e.Rule, State: stateOf(e),
		Over: e.Kind == alerting.KindConn && (e.Phase == alerting.PhaseClose || e.Phase == alerting.PhaseProgress),
	}
}

// clipped bounds what a job chose, for one cell.
func clipped(text string) string {
	const most = 300
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// addrText is an address, "" if there is none.
func addrText(addr netip.Addr) string {
	if !addr.IsValid() {
		return ""
	}
	return addr.String()
}

// destinationOf is what was asked for, with the port if there is one.
func destinationOf(e *alerting.Event) string {
	host := e.Host
	if e.Kind == alerting.KindDNS {
		if host == "" {
			host = e.Name
		}
		return host
	}
	if host == "" {
		host = addrText(e.IP)
	}
	switch {
	case host == "":
		return "unknown"
	case e.Port == 0:
		return host
	case strings.Contains(host, ":"):
		return net.JoinHostPort(host, strconv.Itoa(int(e.Port)))
	default:
		return host + ":" + strconv.Itoa(int(e.Port))
	}
}

// stateOf is how far a question or a connection has come.
func stateOf(e *alerting.Event) string {
	if e.Kind == alerting.KindDNS {
		return "DNS " + e.Type
	}
	moved := sizeText(e.Sent) + " out, " + sizeText(e.Received) + " in"
	switch e.Phase {
	case alerting.PhaseOpen:
		if e.Error != "" {
			return "failed"
		}
		return "open"
	case alerting.PhaseProgress:
		return "open, " + moved
	case alerting.PhaseClose:
		return moved + ", " + spanText(e.Took)
	default:
		if !e.Refused() {
			return "failed"
		}
		return e.Via
	}
}

// sizeText is a number of bytes.
func sizeText(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB", "PB"}
	size, i := float64(n), 0
	for size >= 999.5 && i < len(units)-1 {
		size /= 1000
		i++
	}
	if i == 0 || size >= 99.95 {
		return fmt.Sprintf("%.0f %s", size, units[i])
	}
	return fmt.Sprintf("%.1f %s", size, units[i])
}

// spanText is a length of time, to two figures or so.
func spanText(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < 48*time.Hour:
		text := d.Round(time.Second).String()
		if d >= time.Hour {
			text = strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
		}
		return text
	default:
		return strconv.Itoa(int(d.Hours()/24)) + " days"
	}
}

// An advice says what would let a refused destination pass.
type advice struct {
	Line    string // of an allow list, to copy; "" if no line would
	Why     string // there is none
	Explain string // the command that explains the verdict
}

// adviceFor says what would let the destination of an event pass.
func (p *Pages) adviceFor(e *alerting.Event) advice {
	if verdictOf(e) == verdictAllowed {
		return advice{}
	}
	a := advice{Line: alerting.AllowLine(e), Explain: p.explainCommand(e)}
	if a.Line != "" {
		return a
	}
	switch e.Cause() {
	case allowlists.DeniedByRule:
		a.Why = "A deny rule covers it. Only removing that rule would allow it."
	case allowlists.SpecialAddress:
		a.Why = "Its address is special (private, local or reserved). If it is meant, the rule of the host needs resolves_to, or the address a cidr rule of its own."
	case allowlists.NoPool:
		a.Why = "No pool has this client. Add it to the sources of one."
	case allowlists.ResolverBypass:
		a.Why = "It is a public resolver, which would get around the filter. Only a rule that names it exactly allows it."
	case allowlists.AddressLiteral:
		a.Why = "Host rules never match an address. Ask for it by its name."
	default:
		a.Why = "No line of an allowlist would change this. docs/reasons.md has what to do about " + e.Cause().String() + "."
	}
	return a
}

// explainCommand is the command that tells more: about the destination where
// that can stand in a shell as it is, else about the event.
func (p *Pages) explainCommand(e *alerting.Event) string {
	command := "sallyport explain"
	if p.config.ConfigPath != "" {
		command += " -c " + quoted(p.config.ConfigPath)
	}
	target := ""
	if host, err := allowlists.ParseHost(e.Host); err == nil {
		target = host.String()
		if e.Port != 0 && e.Port != 443 {
			target += ":" + strconv.Itoa(int(e.Port))
		}
	} else if e.Host == "" && e.IP.IsValid() && e.Port != 0 {
		target = netip.AddrPortFrom(e.IP, e.Port).String()
	}
	if target == "" || e.Pool == "" {
		return command + " " + quoted(e.ID)
	}
	return command + " --pool " + quoted(e.Pool) + " " + quoted(target)
}

// quoted is a word for a shell.
func quoted(word string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:@%+,="
	if word != "" && strings.Trim(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
