package proxy

import (
	"time"

	"sallyport/allowlists"
)

// openMeter has what the trip sends counted, together with what its connection
// sent to the same host before.
func (t *trip) openMeter() *meter {
	m := t.s.meterFor(t)
	t.mu.Lock()
	t.meter = m
	t.mu.Unlock()
	// A policy that came meanwhile has asked before there was a meter. One that
	// has sent too much is met by its next byte.
	_ = t.limitUpload()
	return m
}

// limitUpload puts the meter under the policy now in force. The error is the
// upload-limit of a connection that has sent more than it may. It is safe for
// concurrent use.
func (t *trip) limitUpload() error {
	t.mu.Lock()
	m := t.meter
	t.mu.Unlock()
	if m == nil {
		return nil
	}
	_, pool := t.s.subject(t.s.server.cfg.Policy())
	return m.setRule(pool, pool.UploadRule(t.target, time.Now()))
}

// passedLimit records that audit let pass what enforce ends with d.
func (t *trip) passedLimit(d allowlists.Decision) {
	t.edit(func(rec *ConnRecord) {
		if rec.Decision.Reason == allowlists.Allowed { // else enforce had ended it before
			rec.Decision = d
		}
	})
}

// meterKey says what the trip's bytes are counted under.
func (t *trip) meterKey() meterKey {
	host := t.target.Host.String()
	if t.target.Addr.IsValid() {
		host = t.target.Addr.Unmap().String()
	}
	return meterKey{t.subject.Pool, uploadKey{t.subject.Key(), host}}
}

// meterFor gives the meter for a trip of the session: that of the trip before
// if it was to the same host, as it is the same connection. Only the serving
// goroutine may call it.
func (s *session) meterFor(t *trip) *meter {
	if key := t.meterKey(); s.meter == nil || s.meter.key != key {
		s.meter.close()
		s.meter = s.server.uploads.newMeter(key)
	}
	s.meter.setWould(t.passedLimit)
	return s.meter
}
