package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"sallyport/alerting"
)

// maxEventLine bounds a line of an event log, in bytes; the daemon writes none
// longer than 16 KiB.
const maxEventLine = 1 << 20

// eventSource is where explain looks an id up: a log, or a running daemon.
type eventSource struct {
	events    string // path of a log
	log       string // the daemon's own, where it can be read here: it has the alerts, too
	control   string // as listen.control
	tokenFile string // as admin.token_file
}

// check says what is wrong with where to look an id up.
func (s eventSource) check() error {
	if s.events != "" {
		return nil
	}
	if _, ok := strings.CutPrefix(s.control, "unix:"); ok {
		return nil
	}
	if _, rest, url := strings.Cut(s.control, "://"); url {
		host, _, _ := strings.Cut(rest, "/")
		if _, _, err := net.SplitHostPort(host); err != nil {
			host = "127.0.0.1:9181"
		}
		return fmt.Errorf("--control %s is a URL; write an address such as %s, or unix:/path for a socket", s.control, host)
	}
	if strings.ContainsRune(s.control, '/') {
		return fmt.Errorf("--control %s: write unix:%s for a socket", s.control, s.control)
	}
	if _, _, err := net.SplitHostPort(s.control); err != nil {
		return fmt.Errorf("--control %s: write unix:/path, or an address such as 127.0.0.1:9181", s.control)
	}
	return nil
}

// explainEvent prints every line that an id has. The error has exit code 3 if
// it was a refusal.
func explainEvent(w io.Writer, id, format string, source eventSource) error {
	if err := source.check(); err != nil {
		return &exitError{exitUsage, err}
	}
	lines, whole, err := source.story(id)
	if err != nil {
		return &exitError{exitFailed, err}
	}
	if len(lines) == 0 {
		return &exitError{exitFailed, fmt.Errorf("no event has the id %s; the daemon remembers the last 10,000 decisions, --events FILE reads a log", id)}
	}
	found := foundEvents{ID: id, whole: whole}
	for _, line := range lines {
		if err := found.add(line); err != nil {
			return &exitError{exitFailed, fmt.Errorf("reading an event: %w", err)}
		}
	}
	if found.Alert != "" {
		found.withheld, found.AllowBy = found.AllowBy != "", ""
	}
	if format == "json" {
		err = printJSON(w, &found)
	} else {
		_, err = io.WriteString(w, found.text())
	}
	switch {
	case err != nil:
		return &exitError{exitFailed, err}
	case found.Verdict == "deny":
		return &exitError{exitDenied, nil}
	default:
		return nil
	}
}

// story looks the id up. whole is false for one without the alerts about it.
func (s eventSource) story(id string) (lines [][]byte, whole bool, err error) {
	for _, log := range []string{s.events, s.log} {
		if log == "" {
			continue
		}
		if lines, err = storyOf(id, log); err != nil || len(lines) > 0 || s.control == "" {
			return lines, true, err
		}
	}
	lines, err = storyFrom(id, s.askDaemon)
	return lines, false, err
}

// foundEvents are the story of an id. The verdict is that of its own latest
// event: a tunnel that was opened may be refused by its first bytes.
type foundEvents struct {
	ID      string            `json:"id"`
	Verdict string            `json:"verdict,omitempty"`
	Reason  string            `json:"reason,omitempty"`
	Rule    json.RawMessage   `json:"rule,omitempty"`
	AllowBy string            `json:"allow_by,omitempty"` // the line that would allow it, where one would do
	Alert   string            `json:"alert,omitempty"`    // of severity high or critical, about it: it has no such line then
	Events  []json.RawMessage `json:"events"`

	whole    bool // the alerts about it are there, too
	withheld bool // AllowBy was taken away for Alert
	texts    []string
}

func (f *foundEvents) add(line []byte) error {
	var e loggedEvent
	if err := json.Unmarshal(line, &e); err != nil {
		return err
	}
	if e.ID == f.ID && e.Verdict != "" {
		f.Verdict, f.Reason, f.Rule, f.AllowBy = e.Verdict, e.Reason, e.Rule, ""
		if event, err := alerting.ParseEvent(line); err == nil {
			f.AllowBy = alerting.AllowLine(&event)
		}
	}
	if e.Kind == "alert" && (e.Severity == "high" || e.Severity == "critical") {
		f.Alert = e.Alert
	}
	f.Events = append(f.Events, line)
	f.texts = append(f.texts, e.text())
	return nil
}

// text is the story, and below it what would allow what was asked about.
func (f *foundEvents) text() string {
	text := strings.Join(f.texts, "\n")
	switch {
	case f.withheld:
		text += fmt.Sprintf("\nallow by  no line is offered, as the alert %s is about it\n", printable(f.Alert))
	case f.AllowBy != "":
		text += "\nallow by  " + printable(f.AllowBy) + "\n"
	}
	if !f.whole {
		text += "\nnote      this is from the running daemon, which does not say which alerts are about it; --events FILE finds them in its log\n"
	}
	return text
}

// A loggedEvent is what explain shows of an event's line; docs/events.md has
// the fields.
type loggedEvent struct {
	ID       string          `json:"id"`
	Time     string          `json:"time"`
	Kind     string          `json:"kind"`
	Phase    string          `json:"phase"`
	Pool     string          `json:"pool"`
	Client   string          `json:"client"`
	By       string          `json:"by"`
	Via      string          `json:"via"`
	Name     string          `json:"name"`
	Type     string          `json:"type"`
	Host     string          `json:"host"`
	Port     json.Number     `json:"port"`
	IP       string          `json:"ip"`
	SNI      string          `json:"sni"`
	Names    []string        `json:"names"`
	Verdict  string          `json:"verdict"`
	Reason   string          `json:"reason"`
	Would    string          `json:"would"`
	Rule     json.RawMessage `json:"rule"`
	RCode    string          `json:"rcode"`
	Answers  []string        `json:"answers"`
	Removed  []string        `json:"removed"`
	CNAMEs   []string        `json:"cnames"`
	Upstream string          `json:"upstream"`
	Sent     json.Number     `json:"sent"`
	Received json.Number     `json:"received"`
	Error    string          `json:"error"`
	Alert    string          `json:"alert"`
	Severity string          `json:"severity"`
	Count    json.Number     `json:"count"`
	Summary  string          `json:"summary"`
	Suggest  string          `json:"suggest"`
	Closed   string          `json:"closed"`
	DNSID    string          `json:"dns_id"`
	Evidence []string        `json:"evidence"`
	Job      struct {
		Repo     string `json:"repo"`
		Workflow string `json:"workflow"`
		RunID    string `json:"run_id"`
		Job      string `json:"job"`
	} `json:"job"`
}

// text shows the event to a person, a line for each fact that it has.
func (e *loggedEvent) text() string {
	var b strings.Builder
	line := func(name, value string) {
		if value = strings.TrimSpace(value); value != "" {
			fmt.Fprintf(&b, "%-9s %s\n", name, printable(value))
		}
	}
	target := e.Host
	if target == "" {
		target = e.IP
	}
	if e.Port != "" {
		target = net.JoinHostPort(target, e.Port.String())
	}
	verdict := e.Verdict
	if e.Reason != "" {
		verdict += " (" + e.Reason + ")"
	}
	client := e.Client
	if e.By == "proxy" {
		client += " (asked by the proxy for its connection)"
	}
	line("event", strings.Join(strings.Fields(e.Kind+" "+e.Phase+" "+e.ID), " "))
	line("time", e.Time)
	line("alert", strings.TrimSpace(e.Alert+" "+e.Severity))
	line("target", target)
	line("name", e.Name+" "+e.Type)
	line("address", e.IP)
	line("pool", e.Pool)
	line("client", client)
	line("job", strings.Join(strings.Fields(strings.Join([]string{e.Job.Repo, e.Job.Workflow, e.Job.RunID, e.Job.Job}, " ")), " "))
	line("via", e.Via)
	line("verdict", verdict)
	line("would", e.Would)
	line("rule", strings.Trim(string(e.Rule), `"`))
	line("rcode", e.RCode)
	line("cnames", strings.Join(e.CNAMEs, " "))
	line("answers", strings.Join(e.Answers, " "))
	line("removed", strings.Join(e.Removed, " "))
	line("upstream", e.Upstream)
	line("sni", e.SNI)
	line("names", strings.Join(e.Names, " "))
	line("bytes", e.bytes())
	line("error", e.Error)
	line("summary", e.Summary)
	line("count", e.Count.String())
	line("closed", e.Closed)
	line("question", e.DNSID)
	line("evidence", strings.Join(e.Evidence, " "))
	line("allow by", e.Suggest)
	return b.String()
}

// bytes says what a connection carried, where its line has that.
func (e *loggedEvent) bytes() string {
	if e.Sent == "" {
		return ""
	}
	return e.Sent.String() + " sent, " + e.Received.String() + " received"
}

// askDaemon asks the control listener for the decision; nothing if it has none.
func (s eventSource) askDaemon(id string) ([][]byte, error) {
	var lines []json.RawMessage
	err := controlClient{s.control, s.tokenFile}.get("/api/v1/decisions/"+id, &lines)
	switch {
	case errors.Is(err, errNotFound):
		return nil, nil
	case err != nil:
		pause := ";"
		if strings.HasSuffix(err.Error(), "?") {
			pause = ""
		}
		return nil, fmt.Errorf("%w%s --events FILE looks into its log instead", err, pause)
	}
	found := make([][]byte, len(lines))
	for i, line := range lines {
		found[i] = line
	}
	return found, nil
}
