package alerting

import (
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/leodido/go-syslog/v4/rfc5424"

	"sallyport/allowlists"
)

// The words of syslog lines.
const (
	// syslogElement is the id of our structured data. 32473 is the number that
	// RFC 5612 sets aside; we have none of our own.
	syslogElement  = "sallyport@32473"
	syslogFacility = 4    // security and authorization messages (RFC 5424 section 6.2.1)
	syslogText     = 1024 // most bytes of the text of a line, so that a line fits a datagram (RFC 5426 section 3.2)
	syslogValue    = 400  // most bytes of one value
)

// syslogLevels are the severities of RFC 5424 section 6.2.1: critical, error,
// warning and informational.
var syslogLevels = [...]uint8{Info: 6, Medium: 4, High: 3, Critical: 2}

// A syslogWriter makes lines. Its fields do not change.
type syslogWriter struct {
	host, process string
	links         allowlists.Links
}

func newSyslogWriter(links allowlists.Links) syslogWriter {
	host, _ := os.Hostname() // "" becomes -
	return syslogWriter{escapeASCII(strings.ReplaceAll(host, " ", ""), 255), strconv.Itoa(os.Getpid()), links}
}

// lines are the lines of a message: one for each alert.
func (w syslogWriter) lines(m *message) ([]string, error) {
	lines := make([]string, 0, len(m.Items))
	for i := range m.Items {
		line, err := w.line(m, &m.Items[i])
		if err != nil {
			return nil, err
		}
		lines = append(lines, line)
	}
	return lines, nil
}

// line is one alert: printable ASCII without a line break, whatever a job
// called its hosts.
func (w syslogWriter) line(m *message, a *item) (string, error) {
	line := &rfc5424.SyslogMessage{}
	line.SetVersion(1).SetPriority(syslogFacility*8 + syslogLevels[min(a.Severity, Critical)])
	line.SetTimestamp(m.Made.UTC().Format("2006-01-02T15:04:05.000000Z"))
	line.SetHostname(w.host).SetAppname("sallyport").SetProcID(w.process).SetMsgID(knownAlert(a.Alert.Alert))
	for _, param := range [][2]string{
		{"alert", knownAlert(a.Alert.Alert)}, {"severity", a.Severity.String()}, {"pool", a.Pool}, {"group", a.ID},
		{"count", strconv.Itoa(a.Count)}, {"new", strconv.Itoa(a.New)}, {"first", syslogTime(a.First)}, {"last", syslogTime(a.Last)},
		{"event", lastEvidence(&a.Alert)}, {"destination", alertDestination(&a.Alert)}, {"job", jobText(a.Job)},
		{"suggest", a.Suggest}, {"link", eventLink(w.links, &a.Alert)}, {"closed", a.Closed}, {"delivery", m.ID},
	} {
		if param[1] != "" {
			line.SetParameter(syslogElement, param[0], escapeParameter(escapeASCII(param[1], syslogValue)))
		}
	}
	line.SetMessage(escapeASCII(a.Summary, syslogText))
	return line.String()
}

func syslogTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// escapeParameter escapes what RFC 5424 section 6.3.3 asks for.
var escapeParameter = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `]`, `\]`).Replace

// escapeASCII makes text printable ASCII of at most limit bytes: a backslash
// doubled, and everything else as an escape of Go, such as \n, \x1b or \u202e.
func escapeASCII(text string, limit int) string {
	quoted := strconv.QuoteToASCII(text)
	quoted = strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
	if len(quoted) <= limit {
		return quoted
	}
	return strings.TrimRight(quoted[:limit-len(asciiCut)], `\`) + asciiCut
}

// asciiCut ends a text that was cut.
const asciiCut = "..."
