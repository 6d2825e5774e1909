package webui_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestRowsAreStreamed as they come, those that the filter chooses, with what was
// missed between the page and the stream; the end of the session ends it.
func TestRowsAreStreamed(t *testing.T) {
	w := newWorld(t)
	_, h := w.gate(token)
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	w.conn("before1", "10.20.0.7", "evil.example", 443)
	since := time.Now().UnixMicro()
	w.conn("between1", "10.20.0.7", "evil.example", 443)
	in := post(t, h, "/sign-in", "token="+token)
	me := cookie(t, in)
	stream := w.stream(server.URL+fmt.Sprintf("/live?host=evil&since=%d", since), me)
	if got := stream.row(); got["id"] != "between1" {
		t.Errorf("first: %v", got)
	}
	w.conn("other1", "10.20.0.7", "other.example", 443)
	w.conn("after1", "10.20.0.7", "x.evil.example", 443)
	got := stream.row()
	for got["id"] == "before1" || got["id"] == "between1" { // live, once its line is written: a browser knows the id
		got = stream.row()
	}
	if got["id"] != "after1" || got["what"] != "x.evil.example:443" || got["verdict"] != "refused" || got["reason"] != "not-in-allowlist" {
		t.Errorf("then: %v", got)
	}
	if got := get(t, h, "/live?client=x", me); got.Code != http.StatusBadRequest {
		t.Errorf("a filter that cannot be read: %d", got.Code)
	}
	post(t, h, "/sign-out", "", me)
	for ok := true; ok; { // what was on its way
		_, ok = stream.line("data: ")
	}
	if stream.lines.Err() != nil {
		t.Errorf("after signing out the stream goes on: %v", stream.lines.Err())
	}
}

// TestSoManyStreamsAreServed: one more is told to come back.
func TestSoManyStreamsAreServed(t *testing.T) {
	w := newWorld(t)
	server := httptest.NewServer(w.pages)
	t.Cleanup(server.Close)
	for range 16 {
		w.stream(server.URL + "/live").line("retry:")
	}
	if got := get(t, w.pages, "/live"); got.Code != http.StatusServiceUnavailable || got.Header().Get("Retry-After") == "" {
		t.Errorf("the seventeenth: %d", got.Code)
	}
}

// TestARowComesWithinASecond of a refusal, by the clock of the test, while 10,000
// other events come a second, whether the filter leaves those out or not.
func TestARowComesWithinASecond(t *testing.T) {
	for _, filter := range []string{"?host=evil", ""} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			ctx, leave := context.WithCancel(t.Context())
			page := &timedPage{ResponseRecorder: httptest.NewRecorder(), came: make(map[string]time.Time)}
			left := make(chan struct{})
			go func() {
				defer close(left)
				w.pages.ServeHTTP(page, httptest.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:9181/live"+filter, nil))
			}()
			synctest.Wait()
			refused := make(map[string]time.Time)
			for tick := range 3000 { // of a millisecond
				if tick%500 == 250 {
					id := fmt.Sprintf("refused%d", tick)
					refused[id] = time.Now()
					w.conn(id, "10.20.0.7", "x.evil.example", 443)
				}
				for i := range 10 {
					w.conn(fmt.Sprintf("other%dx%d", tick, i), "10.20.0.8", "registry.corp.example", 443)
				}
				time.Sleep(time.Millisecond)
			}
			time.Sleep(time.Second)
			leave()
			<-left
			for id, at := range refused {
				if came, ok := page.came[id]; !ok || came.Sub(at) > time.Second {
					t.Errorf("with %q, %s came %v after the refusal", filter, id, came.Sub(at))
				}
			}
			if len(refused) != 6 {
				t.Errorf("%d refusals", len(refused))
			}
		})
	}
}

// A timedPage keeps when each row came.
type timedPage struct {
	*httptest.ResponseRecorder
	came map[string]time.Time
}

func (p *timedPage) Write(text []byte) (int, error) {
	for line := range strings.Lines(string(text)) {
		var row struct{ ID string }
		if data, ok := strings.CutPrefix(line, "data: "); ok && json.Unmarshal([]byte(data), &row) == nil && p.came[row.ID].IsZero() {
			p.came[row.ID] = time.Now()
		}
	}
	return len(text), nil
}

// An openStream is read line by line.
type openStream struct {
	t     *testing.T
	lines *bufio.Scanner
}

// stream opens one, until the test ends.
func (w *world) stream(url string, change ...func(*http.Request)) *openStream {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	w.t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, c := range change {
		c(r)
	}
	answer, err := (&http.Client{Transport: &http.Transport{}}).Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { answer.Body.Close() })
	if answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Type") != "text/event-stream" {
		w.t.Fatalf("%s: %s", url, answer.Status)
	}
	return &openStream{w.t, bufio.NewScanner(answer.Body)}
}

// line is the next one with a prefix; false at the end.
func (s *openStream) line(prefix string) (string, bool) {
	for s.lines.Scan() {
		if rest, ok := strings.CutPrefix(s.lines.Text(), prefix); ok {
			return rest, true
		}
	}
	return "", false
}

// row is the next row.
func (s *openStream) row() map[string]any {
	s.t.Helper()
	text, ok := s.line("data: ")
	var row map[string]any
	if err := json.Unmarshal([]byte(text), &row); !ok || err != nil {
		s.t.Fatalf("no row: %q, %v, %v", text, err, s.lines.Err())
	}
	return row
}
