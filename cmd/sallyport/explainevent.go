package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// maxEventLine bounds a line of an event log, in bytes; the daemon writes none
// longer than 16 KiB.
const maxEventLine = 1 << 20

// eventIDLength is the length of an event's id.
const eventIDLength = 12

// isEventID reports whether an argument of explain is an id rather than a host:
// no host name is a single label of that very form in a log.
func isEventID(text string) bool {
	return len(text) == eventIDLength && strings.Trim(text, "abcdefghijklmnopqrstuvwxyz23456789") == ""
}

// explainEvent prints every line that an id has, from a log or the daemon.
func explainEvent(w io.Writer, id, events, control string) error {
	var lines [][]byte
	var err error
	if events != "" {
		lines, err = linesOf(id, events)
	} else {
		lines, err = askDaemon(id, control)
	}
	if err != nil {
		return &exitError{exitFailed, err}
	}
	if len(lines) == 0 {
		return &exitError{exitFailed, fmt.Errorf("no event has the id %s; the daemon remembers the last 10,000 decisions, --events FILE reads a log", id)}
	}
	for _, line := range lines {
		if _, err := fmt.Fprintf(w, "%s\n", bytes.TrimSpace(line)); err != nil {
			return err
		}
	}
	return nil
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
		var e struct {
			ID       string   `json:"id"`
			DNSID    string   `json:"dns_id"`
			Evidence []string `json:"evidence"`
		}
		if !bytes.Contains(scanner.Bytes(), []byte(id)) || json.Unmarshal(scanner.Bytes(), &e) != nil {
			continue
		}
		if e.ID == id || e.DNSID == id || strings.Contains(strings.Join(e.Evidence, " "), id) {
			found = append(found, bytes.Clone(scanner.Bytes()))
		}
	}
	return found, scanner.Err()
}

// askDaemon asks the control listener, "unix:/path".
func askDaemon(id, control string) ([][]byte, error) {
	path, ok := strings.CutPrefix(control, "unix:")
	if !ok {
		return nil, errors.New("--control takes unix:/path of the daemon's control socket")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/api/v1/decisions/"+id, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return nil, nil
	}
	var lines []json.RawMessage
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxEventLine)).Decode(&lines); err != nil {
		return nil, fmt.Errorf("reading the daemon's answer: %w", err)
	}
	found := make([][]byte, len(lines))
	for i, line := range lines {
		found[i] = line
	}
	return found, nil
}
