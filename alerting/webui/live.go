package webui

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"sallyport/alerting"
)

// maxRows is how many rows the list begins with.
const maxRows = 100

// A livePage is the list of connections and refusals.
type livePage struct {
	Filter filter
	Pools  []string
	Rows   []row
	Since  int64 // microseconds of the moment up to which Rows are whole
	Stream string
}

// live shows the list.
func (p *Pages) live(w http.ResponseWriter, r *http.Request) {
	f := parseFilter(r.URL.Query())
	page := livePage{Filter: f, Pools: p.poolNames(), Since: time.Now().UnixMicro()}
	page.Stream = "/live?" + f.Query()
	var ok bool
	if page.Rows, ok = p.recentRows(r.Context(), &f, time.Time{}, maxRows); !ok {
		return
	}
	code := http.StatusOK
	if len(f.Faults) > 0 {
		code = http.StatusBadRequest
	}
	p.show(w, r, code, "live", "Live", page)
}

// recentRows are the latest rows that a filter chooses, newest first, as they
// stand; those that began after since.
func (p *Pages) recentRows(ctx context.Context, f *filter, since time.Time, most int) (rows []row, ok bool) {
	if len(f.Faults) > 0 {
		return nil, true
	}
	done, ok := p.look(ctx)
	if !ok {
		return nil, false
	}
	defer done()
	p.config.Events.Recent(func(first, _ []byte) bool { return lineListed(first) }, func(e, latest *alerting.Event) bool {
		if e.Time.Before(since) {
			return false
		}
		if latest != nil && latest.Kind == e.Kind {
			e = latest
		}
		if f.matches(e) {
			rows = append(rows, rowOf(e))
		}
		return len(rows) < most
	})
	return rows, true
}

// poolNames are the pools of the policy in force.
func (p *Pages) poolNames() []string {
	var names []string
	for _, pool := range p.config.Policy().Pools() {
		names = append(names, pool.Name())
	}
	return names
}

// The times of a stream.
const (
	streamGather = 100 * time.Millisecond // rows that come together are sent together
	streamBeat   = 15 * time.Second       // something is sent so often, to see who has gone
	streamWrite  = 10 * time.Second       // a reader who takes nothing for so long has gone
)

// stream sends rows as they come (text/event-stream), sampled where they are
// too many, with how many are left out.
func (p *Pages) stream(w http.ResponseWriter, r *http.Request) {
	f := parseFilter(r.URL.Query())
	if len(f.Faults) > 0 {
		http.Error(w, f.Faults[0], http.StatusBadRequest)
		return
	}
	watch, ok := p.config.Events.Watch(f.matches)
	if !ok {
		w.Header().Set("Retry-After", "30")
		http.Error(w, "too many pages are open", http.StatusServiceUnavailable)
		return
	}
	defer watch.Close()
	s := &stream{w: w, control: http.NewResponseController(w)}
	_ = s.control.SetReadDeadline(time.Time{}) // that of the request's head ends the connection
	w.Header().Set("Content-Type", "text/event-stream")
	rows, ok := p.recentRows(r.Context(), &f, sinceOf(r), maxRows)
	if !ok {
		return
	}
	s.buffer.WriteString("retry: 3000\n\n")
	for i := len(rows) - 1; i >= 0; i-- {
		s.row(&rows[i])
	}
	for s.send() && r.Context().Err() == nil {
		beat, cancel := context.WithTimeout(r.Context(), streamBeat)
		events, missed := watch.Next(beat)
		cancel()
		for i := range events {
			next := rowOf(&events[i])
			s.row(&next)
		}
		s.missed(missed)
		if len(events) > 0 || missed > 0 {
			pause(r.Context(), streamGather)
		}
	}
}

// sinceOf is the moment from which a reader lacks rows.
func sinceOf(r *http.Request) time.Time {
	text := r.Header.Get("Last-Event-ID")
	if text == "" {
		text = r.URL.Query().Get("since")
	}
	micros, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Now()
	}
	return time.UnixMicro(micros)
}

// pause waits, at most until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// A stream is what one page is sent.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	buffer  bytes.Buffer
}

// row adds a row. JSON has no line break.
func (s *stream) row(next *row) {
	text, err := json.Marshal(next)
	if err != nil {
		return
	}
	at, _ := time.Parse(time.RFC3339Nano, next.Time)
	s.buffer.WriteString("id: " + strconv.FormatInt(at.UnixMicro(), 10) + "\nevent: row\ndata: ")
	s.buffer.Write(text)
	s.buffer.WriteString("\n\n")
}

// missed adds how many rows are not shown.
func (s *stream) missed(n int64) {
	if n > 0 {
		s.buffer.WriteString("event: missed\ndata: " + strconv.FormatInt(n, 10) + "\n\n")
	}
}

// send sends what was added, or a comment; false if the reader has gone.
func (s *stream) send() bool {
	if s.buffer.Len() == 0 {
		s.buffer.WriteString(": still here\n\n")
	}
	_ = s.control.SetWriteDeadline(time.Now().Add(streamWrite))
	_, err := s.w.Write(s.buffer.Bytes())
	s.buffer.Reset()
	return err == nil && s.control.Flush() == nil
}
