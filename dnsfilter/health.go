package dnsfilter

import (
	"strings"
	"sync"
	"time"
)

// The back-off of a silent upstream doubles from the first to the second.
const (
	minBackoff = time.Second
	maxBackoff = time.Minute
)

// health says whether one upstream answers. The zero value is a healthy one.
// Safe for concurrent use. Only silence and broken transport count: SERVFAIL and
// REFUSED are answers, or any job could mark every upstream as down by asking
// for a name whose zone is broken.
type health struct {
	mu       sync.Mutex
	failures int       // since the last answer, one a back-off; 0: up
	retry    time.Time // end of the back-off
	last     time.Time // of the last answer
	probing  bool
	lastErr  string
}

// up reports whether the upstream answered when last asked.
func (h *health) up() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failures == 0
}

// claimProbe reports whether the caller shall probe: the back-off is over and
// nobody else does. The caller ends it with endProbe.
func (h *health) claimProbe(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failures == 0 || h.probing || now.Before(h.retry) {
		return false
	}
	h.probing = true
	return true
}

// endProbe lets the next probe begin once its time has come.
func (h *health) endProbe() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.probing = false
}

// answered records an answer and reports whether the upstream was down before.
func (h *health) answered(now time.Time) (recovered bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	recovered = h.failures > 0
	h.failures, h.retry, h.last = 0, time.Time{}, now
	return recovered
}

// failed records an attempt without an answer and reports whether the upstream
// was up before. An attempt during which another question was answered blames
// the question, not the upstream.
func (h *health) failed(began, now time.Time, err error) (fell bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lastErr = clip(err.Error())
	if h.last.After(began) || now.Before(h.retry) {
		return false
	}
	fell = h.failures == 0
	backoff := min(maxBackoff, minBackoff<<min(h.failures, 10))
	h.failures++
	h.retry = now.Add(backoff)
	return fell
}

// status copies the state; the name is left to the caller.
func (h *health) status() UpstreamStatus {
	h.mu.Lock()
	defer h.mu.Unlock()
	return UpstreamStatus{Up: h.failures == 0, Failures: h.failures, Retry: h.retry, LastError: h.lastErr}
}

// clip cuts an error's text to a length fit for a log or a page.
func clip(text string) string {
	if len(text) > maxErrorText {
		text = strings.ToValidUTF8(text[:maxErrorText], "") + "…"
	}
	return text
}
