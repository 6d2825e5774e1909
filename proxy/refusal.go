package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"sallyport/allowlists"
)

// maxStatusLine is the length of a refusal's status line, in bytes: all that
// many clients show.
const maxStatusLine = 120

// refusalWrite bounds the writing of one answer.
const refusalWrite = 5 * time.Second

// answer sends a refusal, and has the session linger. A reason without a
// status closes the connection with a reset instead.
func (s *session) answer(rec *ConnRecord, t *trip, denial *allowlists.DeniedError) {
	status := denial.Decision.Reason.Status()
	switch {
	case t.via == ViaHTTP && denial.Decision.Reason == allowlists.AddressMismatch:
		status = http.StatusForbidden
	case t.via == ViaTLS, t.via == ViaTCP:
		if status = 0; t.tls {
			s.alert()
		}
	}
	if status == 0 {
		_ = s.conn.SetLinger(0)
		return
	}
	if errors.Is(denial, errHeadLarge) {
		status = http.StatusRequestHeaderFieldsTooLarge
	}
	body := explain(rec, t, denial) + "\n"
	var out bytes.Buffer
	out.WriteString(statusLine(status, rec, denial.Decision.Reason))
	fmt.Fprintf(&out, "\r\nSallyport-Reason: %s\r\nSallyport-Id: %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n",
		denial.Decision.Reason, rec.ID, len(body))
	if status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
		out.WriteString("Retry-After: " + retryAfter + "\r\n")
	}
	out.WriteString("Connection: close\r\n\r\n")
	if rec.Method != http.MethodHead {
		out.WriteString(body)
	}
	_ = s.conn.SetWriteDeadline(time.Now().Add(refusalWrite))
	_, _ = s.conn.Write(out.Bytes())
	s.lingers = true
}

// statusLine is "HTTP/1.1 403 Sallyport: HOST:PORT not in pool POOL (REASON, ID)",
// in printable ASCII, with the destination cut where it is too long.
func statusLine(status int, rec *ConnRecord, reason allowlists.Reason) string {
	front := fmt.Sprintf("HTTP/1.1 %d Sallyport: ", status)
	what, where := verdictText(status, rec)
	back := fmt.Sprintf("%s (%s, %s)", what, reason, rec.ID)
	if room := maxStatusLine - len(front) - len(back); room < len(where) {
		where = "..." + where[len(where)-max(room-3, 0):] // the end of a name says whose it is
	}
	line := front + where + back
	if len(line) > maxStatusLine { // a long pool name
		tail := fmt.Sprintf(" (%s, %s)", reason, rec.ID)
		line = line[:maxStatusLine-len(tail)] + tail
	}
	return line
}

// verdictText is what a status line says of a destination.
func verdictText(status int, rec *ConnRecord) (what, where string) {
	where = printable(destination(rec))
	if where == "" {
		where = "the request"
	}
	switch status {
	case http.StatusForbidden:
		pool := rec.Subject.Pool
		if pool == "" {
			pool = "-"
		}
		return " not in pool " + printable(pool), where
	case http.StatusBadGateway:
		return " could not be reached", where
	case http.StatusGatewayTimeout:
		return " did not answer in time", where
	case http.StatusTooManyRequests:
		return " must wait, too many connections", where
	case http.StatusServiceUnavailable:
		return " must wait", where
	case http.StatusRequestHeaderFieldsTooLarge:
		return " refused, head too large", where
	case http.StatusInternalServerError:
		return " failed inside the proxy", where
	default:
		return " refused, malformed", where
	}
}

// destination is "host:port" as far as the record knows it, with brackets
// around an IPv6 address.
func destination(rec *ConnRecord) string {
	host := rec.Host
	if host == "" || rec.Port == 0 {
		return host
	}
	if strings.Contains(host, ":") && host[0] != '[' {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(int(rec.Port))
}

// printable replaces what is no printable ASCII by question marks.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, text)
}
