package proxy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/allowlists"
)

// Bounds of what connections hold of one account.
const (
	// speculativePart: a splice, which cannot know what will come, holds at most
	// one part in so many of what is left.
	speculativePart = 8
	// heldWait is how long a connection waits for what others hold before what
	// they hold counts as sent. A splice that waits for its client gives back
	// within spliceHold; one that waits for its upstream has bytes under way.
	heldWait = 2 * spliceHold
)

// errUploadLimit is inside the upload-limit that ends a connection.
var errUploadLimit = errors.New("upload_limit is reached")

// A meter says how much of what one client connection has for one host may
// still be sent, by the limit of its rule: per connection, and together with
// the account of client and host. take, speculate and settle are for the
// goroutine that sends; the rest is safe for concurrent use. A nil meter has no
// limit.
type meter struct {
	key     meterKey
	uploads *uploads
	sent    atomic.Int64 // by this connection, with or without a limit
	capped  atomic.Bool  // a rule has a limit
	limits  atomic.Int64 // counts changes of the limit

	mu      sync.Mutex // guards all below
	pool    *allowlists.Pool
	rule    *allowlists.Rule // with the lowest limit; nil: none
	account *account         // from the first limit on
	closed  bool
	// would is told once in audit, when the limit is passed; nil: it was told.
	would func(allowlists.Decision)
	// changed is called with mu held when the limit is another, so that what is
	// held by the one before is settled; nil: nothing is.
	changed func()
}

// A meterKey says what a meter counts.
type meterKey struct {
	pool string
	uploadKey
}

// newMeter makes a meter without a limit.
func (u *uploads) newMeter(key meterKey) *meter { return &meter{key: key, uploads: u} }

// setWould says who is told, once, when audit lets pass what is past the limit.
func (m *meter) setWould(would func(allowlists.Decision)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.would = would
}

// setRule puts the meter under a rule of the policy now in force, nil for none.
// It reports whether the connection has sent more than that allows already.
func (m *meter) setRule(pool *allowlists.Pool, rule *allowlists.Rule) error {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	limit := limitOf(m.rule)
	m.pool, m.rule = pool, rule
	m.capped.Store(rule != nil)
	if limitOf(rule) != limit {
		m.limits.Add(1)
		if m.changed != nil {
			m.changed()
		}
	}
	if rule == nil {
		return nil
	}
	if m.account == nil {
		m.account = m.uploads.open(m.key.pool, m.key.client, m.key.host)
	}
	if m.sent.Load() > rule.UploadLimit {
		return m.over()
	}
	return nil
}

func limitOf(rule *allowlists.Rule) int64 {
	if rule == nil {
		return 0
	}
	return rule.UploadLimit
}

// changes numbers the limit now in force.
func (m *meter) changes() int64 {
	if m == nil {
		return 0
	}
	return m.limits.Load()
}

// onChange says what is called when the limit changes, nil for nothing.
func (m *meter) onChange(changed func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changed = changed
}

// over is what becomes of a connection past its limit: a denial, or nothing in
// audit, which is told of once. The caller holds mu.
func (m *meter) over() error {
	d := m.pool.Refuse(allowlists.UploadLimit, m.rule)
	if !d.Allowed() {
		return m.denial(d)
	}
	if m.would != nil {
		m.would(d)
		m.would = nil
	}
	return nil
}

// terms are what a taker goes by. With audit nothing is refused.
func (m *meter) terms() (limit int64, a *account, audit bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rule == nil {
		return 0, nil, false
	}
	return m.rule.UploadLimit, m.account, m.pool.Refuse(allowlists.UploadLimit, m.rule).Allowed()
}

// A grant is what a meter has let a connection send, to be settled.
type grant struct {
	bytes   int64
	account *account // nil: nothing is held
}

// take asks for want bytes that are there to be sent. A grant of fewer comes
// with the denial that ends the connection once those are sent.
func (m *meter) take(ctx context.Context, want int64) (grant, error) {
	if m == nil || !m.capped.Load() {
		return grant{bytes: want}, nil
	}
	until := time.Now().Add(heldWait)
	for {
		limit, a, audit := m.terms()
		if a == nil || audit {
			return grant{bytes: want}, nil
		}
		ask := min(want, max(0, limit-m.sent.Load()))
		got, busy, changed := a.take(ask, limit)
		if busy {
			busy = a.wait(ctx, changed, time.Until(until))
			if busy {
				continue
			}
			got = a.takeNow(ask, limit)
		}
		if got == want {
			return grant{got, a}, nil
		}
		return grant{got, a}, m.deny()
	}
}

// deny is the denial of a taker that got less than it has to send.
func (m *meter) deny() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.over(); err != nil {
		return err
	}
	// The policy has changed between the two: end with what it was.
	return m.denial(allowlists.Decision{Reason: allowlists.UploadLimit, Rule: m.rule})
}

// denial says which of the two limits was reached. The caller holds mu.
func (m *meter) denial(d allowlists.Decision) error {
	by := "by this client to this host within the last hour"
	if m.rule != nil && m.sent.Load() >= m.rule.UploadLimit {
		by = "by this connection"
	}
	return &allowlists.DeniedError{Decision: d, Err: fmt.Errorf("%w %s", errUploadLimit, by)}
}

// wait waits for a settlement and reports whether there was one.
func (a *account) wait(ctx context.Context, changed <-chan struct{}, limit time.Duration) bool {
	defer a.waited()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-changed:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// speculate asks for up to want bytes that may come. It grants none where the
// limit is near.
func (m *meter) speculate(want int64) grant {
	if m == nil || !m.capped.Load() {
		return grant{bytes: want}
	}
	limit, a, audit := m.terms()
	if a == nil || audit {
		return grant{bytes: want}
	}
	ask := min(want, (limit-m.sent.Load())/speculativePart)
	if ask < copyBuffer {
		return grant{}
	}
	got := a.speculate(ask, limit)
	if got < copyBuffer {
		a.settle(got, 0)
		return grant{}
	}
	return grant{got, a}
}

// settle says how much of a grant was sent.
func (m *meter) settle(g grant, used int64) {
	if m == nil {
		return
	}
	sent := m.sent.Add(used)
	if g.account != nil {
		g.account.settle(g.bytes, used)
		return
	}
	if !m.capped.Load() {
		return
	}
	if limit, a, audit := m.terms(); a != nil {
		total := a.settle(0, used)
		if audit && max(total, sent) > limit {
			m.mu.Lock()
			defer m.mu.Unlock()
			_ = m.over()
		}
	}
}

// passed is the denial of a connection that has sent more than the limit now in
// force, which was another when it asked; nil for any other.
func (m *meter) passed() error {
	if m == nil || !m.capped.Load() {
		return nil
	}
	if limit, a, audit := m.terms(); a == nil || audit || m.sent.Load() <= limit {
		return nil
	}
	return m.deny()
}

// close ends the meter; its account keeps what was sent.
func (m *meter) close() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.closed = true
		m.account.close()
	}
}
