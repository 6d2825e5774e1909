package dnsfilter

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestHealth(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(d time.Duration) time.Time { return start.Add(d) }
	silent := errors.New(strings.Repeat("é", 300))

	var h health
	if !h.up() || h.claimProbe(start) {
		t.Error("a new upstream is up and needs no probe")
	}
	if !h.failed(at(0), at(1), silent) || h.up() {
		t.Error("the first failure takes it down")
	}
	if h.failed(at(0), at(2), silent) || h.failures != 1 {
		t.Error("failures of the same moment count once")
	}
	if len(h.lastErr) > maxErrorText+len("…") {
		t.Error("the error is kept whole")
	}
	if h.claimProbe(at(time.Second)) || !h.claimProbe(at(time.Second+1)) || h.claimProbe(at(time.Minute)) {
		t.Error("one probe begins, after the back-off")
	}
	h.endProbe()
	now := at(0)
	for want := 2 * time.Second; want < 3*maxBackoff; want *= 2 {
		now = h.retry
		if h.failed(now, now, silent) || h.retry.Sub(now) != min(want, maxBackoff) {
			t.Errorf("the back-off is %v, want %v", h.retry.Sub(now), min(want, maxBackoff))
		}
	}
	h.failures = 1 << 40 // no overflow however long it stays silent
	if h.retry = now; h.failed(now, now, silent) || h.retry.Sub(now) != maxBackoff {
		t.Error("the back-off overflows")
	}
	if !h.answered(now) || !h.up() || h.answered(now) {
		t.Error("one answer brings it back")
	}
	if h.failed(now.Add(-1), now.Add(1), silent) || !h.up() {
		t.Error("a failure during which another question was answered blames the question")
	}
}
