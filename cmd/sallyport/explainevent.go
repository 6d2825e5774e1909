package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
)

// maxEventLine bounds a line of an event log, in bytes; the daemon writes none
// longer than 16 KiB.
const maxEventLine = 1 << 20

// eventSource is where explain looks an id up: a log, or a running daemon.
type eventSource struct {
	events    string // path of a log
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
	var lines [][]byte
	var err error
	if source.events != "" {
		lines, err = linesOf(id, source.events)
	} else {
		lines, err = source.askDaemon(id)
	}
	if err != nil {
		return &exitError{exitFailed, err}
	}
	if len(lines) == 0 {
		return &exitError{exitFailed, fmt.Errorf("no event has the id %s; the daemon remembers the last 10,000 decisions, --events FILE reads a log", id)}
	}
	found := foundEvents{ID: id}
	for _, line := range lines {
		if err := found.add(line); err != nil {
			return &exitError{exitFailed, fmt.Errorf("reading an event: %w", err)}
		}
	}
	if format == "json" {
		err = printJSON(w, &found)
	} else {
		_, err = io.WriteString(w, strings.Join(found.texts, "\n"))
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

// foundEvents are the events of an id. The verdict is that of its own latest
// event: a tunnel that was opened may be refused by its first bytes.
type foundEvents struct {
	ID      string            `json:"id"`
	Verdict string            `json:"verdict,omitempty"`
	Reason  string            `json:"reason,omitempty"`
	Rule    json.RawMessage   `json:"rule,omitempty"`
	Events  []json.RawMessage `json:"events"`
	texts   []string
}

func (f *foundEvents) add(line []byte) error {
	var e loggedEvent
	if err := json.Unmarshal(line, &e); err != nil {
		return err
	}
	if e.ID == f.ID && e.Verdict != "" {
		f.Verdict, f.Reason, f.Rule = e.Verdict, e.Reason, e.Rule
	}
	f.Events = append(f.Events, line)
	f.texts = append(f.texts, e.text())
	return nil
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
	Name     string          `json:"name"`
	Type     string          `json:"type"`
	Host     string          `json:"host"`
	Port     json.Number     `json:"port"`
	IP       string          `json:"ip"`
	Verdict  string          `json:"verdict"`
	Reason   string          `json:"reason"`
	Would    string          `json:"would"`
	Rule     json.RawMessage `json:"rule"`
	Error    string          `json:"error"`
	Summary  string          `json:"summary"`
	Suggest  string          `json:"suggest"`
	DNSID    string          `json:"dns_id"`
	Evidence []string        `json:"evidence"`
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
	line("event", strings.Join([]string{e.Kind, e.Phase, e.ID}, " "))
	line("time", e.Time)
	line("target", target)
	line("name", e.Name+" "+e.Type)
	line("address", e.IP)
	line("pool", e.Pool)
	line("client", e.Client)
	line("verdict", verdict)
	line("would", e.Would)
	line("rule", strings.Trim(string(e.Rule), `"`))
	line("error", e.Error)
	line("summary", e.Summary)
	line("answer", e.DNSID)
	line("evidence", strings.Join(e.Evidence, " "))
	line("allow by", e.Suggest)
	return b.String()
}

// linesOf reads a log for the lines with the id.
func linesOf(id, path string) ([][]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var found [][]byte
	scanner := bufio.NewScanner(f)
	scanner.Buffer(make([]byte, 0, 64<<10), maxEventLine)
	for scanner.Scan() {
		var e loggedEvent
		if !bytes.Contains(scanner.Bytes(), []byte(id)) || json.Unmarshal(scanner.Bytes(), &e) != nil {
			continue
		}
		if e.ID == id || e.DNSID == id || strings.Contains(strings.Join(e.Evidence, " "), id) {
			found = append(found, bytes.Clone(scanner.Bytes()))
		}
	}
	return found, scanner.Err()
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
