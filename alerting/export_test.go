package alerting

import (
	"context"
	"net/netip"
	"os"
	"slices"
	"time"

	"sallyport/allowlists"
)

// EncodeForBench makes a line and forgets it.
func EncodeForBench(e *Event) int {
	w := encoders.Get().(*encoder)
	defer encoders.Put(w)
	return len(w.encode(e))
}

// A FakeReader stands in for the correlator: a struct of funcs, nil ones do nothing.
type FakeReader struct {
	Resume func() (Position, bool)
	Lost   bool
	Recall func(*Event)
	Begin  func(Position)
	Take   func(*Event)
}

func (FakeReader) open() error { return nil }

func (f FakeReader) resume() (Position, bool) {
	if f.Resume == nil {
		return Position{}, false
	}
	return f.Resume()
}

func (f FakeReader) lost() bool { return f.Lost }

func (f FakeReader) recall(e *Event) {
	if f.Recall != nil {
		f.Recall(e)
	}
}

func (f FakeReader) begin(p Position) {
	if f.Begin != nil {
		f.Begin(p)
	}
}

func (f FakeReader) take(e *Event) {
	if f.Take != nil {
		f.Take(e)
	}
}

func (FakeReader) run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// SetReader makes r take the events; before Run.
func (a *Alerting) SetReader(r FakeReader) { a.reader = r }

// SetBuffer bounds the waiting lines, in bytes; before Run.
func (a *Alerting) SetBuffer(limit int64) { a.log.limit = limit }

// SetQueue bounds the events that wait for the reader; before Run.
func (a *Alerting) SetQueue(limit int) { a.queue = newEventQueue(limit) }

// SetKept says up to where the reader has kept what it took; before Run.
func (a *Alerting) SetKept(kept func() Position) { a.log.sink.kept = kept }

// SetMoveGrace is how long SIGHUP may take after a rename; before Run.
func (a *Alerting) SetMoveGrace(d time.Duration) { a.log.sink.patience = d }

// PlaceIn is the end of a file.
func PlaceIn(info os.FileInfo) Position { return placeIn(info) }

// Look has the log look for its file, soon.
func (a *Alerting) Look() { signal(a.log.look) }

// Record records any event.
func (a *Alerting) Record(e Event) { a.record(&e) }

// Skeleton is skeleton.
func Skeleton(label string) string { return skeleton(label) }

// LooksLike reports whether host is one edit from an allowed one, by the index
// and one by one. Skeletons count for both.
func LooksLike(allow []string, host string) (fast, slow bool) {
	l, d := likeIndex(allow), mustRegistrable(host)
	_, _, fast = l.of(d, 1)
	for _, other := range allow {
		known := mustRegistrable(other)
		if known.label == d.label {
			return fast, false
		}
		slow = slow || oneEdit(known.label, d.label) || skeleton(known.label) == skeleton(d.label)
	}
	return fast, slow
}

// LookalikeFinder finds what looks like one of the allowed hosts.
func LookalikeFinder(allow []string) func(host string) bool {
	l := likeIndex(allow)
	return func(host string) bool {
		_, _, ok := l.of(mustRegistrable(host), 5)
		return ok
	}
}

func likeIndex(allow []string) *lookalikes {
	l := &lookalikes{}
	for _, host := range allow {
		l.add(mustRegistrable(host))
	}
	slices.Sort(l.index)
	return l
}

func mustRegistrable(host string) likeDomain {
	d, ok := registrable(host)
	if !ok {
		panic(host)
	}
	return d
}

// ScanRoom tells how full scanClients was: Most at any time, Used by its own
// count at the end, Counted one by one, Expired when all was old.
type ScanRoom struct{ Room, Most, Used, Counted, Expired int }

// ScanRoomUsed shows scanClients n probes of as many clients as said, in turn.
func ScanRoomUsed(n, clients int) (r ScanRoom) {
	s := newScanClients(20, time.Minute)
	r.Room = s.room
	now := time.Unix(0, 0)
	for i := range n {
		now = now.Add(time.Millisecond / 10)
		client := netip.AddrFrom4([4]byte{10, byte(i % clients >> 16), byte(i % clients >> 8), byte(i % clients)})
		s.add(clientOf{"build", client}, probe{to: netip.AddrPortFrom(client, uint16(i/clients)), time: now})
		r.Most = max(r.Most, s.used)
	}
	for _, c := range s.clients {
		r.Counted += 1 + len(c.probes)
	}
	r.Used = s.used
	s.expire(now.Add(2 * time.Minute))
	r.Expired = s.used + len(s.clients)
	return r
}

// Waiting is how many bytes of lines wait.
func (a *Alerting) Waiting() int64 {
	a.log.mu.Lock()
	defer a.log.mu.Unlock()
	return a.log.size
}

// SetFlushTime bounds how long the last lines may take; before Run.
func (a *Alerting) SetFlushTime(d time.Duration) { a.log.last = d }

// Behind is how many events the reader did not take yet, those of a gap
// included.
func (a *Alerting) Behind() int64 {
	a.queue.mu.Lock()
	defer a.queue.mu.Unlock()
	return int64(len(a.queue.items)-a.queue.head) + a.queue.missed
}

// Totals sums the counts of the open groups by alert, and what of them a sink
// was not told.
func (a *Alerting) Totals(sink string) (found map[string]int, untold int) {
	c := a.reader.(*correlator)
	c.mu.Lock()
	defer c.mu.Unlock()
	found = make(map[string]int)
	for _, g := range c.groups.open {
		found[g.Alert.Alert] += g.Count
		untold += g.untold(sink)
	}
	return found, untold
}

// LineForTest is the line of an event.
func LineForTest(e *Event) []byte {
	w := encoders.Get().(*encoder)
	defer encoders.Put(w)
	return slices.Clone(w.encode(e))
}

// OfferAt offers a watch so many events, all at one age of it.
func OfferAt(w *Watch, age time.Duration, n int) {
	for range n {
		w.offer(&Event{Kind: KindDNS, ID: "x", Verdict: allowlists.Allow}, w.began.Add(age))
	}
}

// ShowForBench offers an event to all who watch, so many times together.
func ShowForBench(a *Alerting, e *Event, times int) {
	now := a.watches.now()
	for range times {
		a.watches.show(e, now)
	}
}
