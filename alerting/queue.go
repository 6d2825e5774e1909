package alerting

import (
	"cmp"
	"slices"
	"time"

	"sallyport/allowlists"
)

// A message is what a sink sends at once: some groups as they stood when it
// was made. It is in the store before it is sent, and keeps its id however
// often it is sent, so that a repeat can be told from news.
type message struct {
	ID    string    `json:"id"`
	Sink  string    `json:"sink"`
	Made  time.Time `json:"made"`
	Items []item    `json:"items"`
	// Day is set in a daily summary, which has no items.
	Day *day `json:"day,omitempty"`
}

// An item is one group in a message. An Alert it holds is never changed.
type item struct {
	Alert
	New    int  `json:"new"`    // findings since the last message about the group to this sink
	Repeat bool `json:"repeat"` // there was one
	// GroupKey is the group that the delivery counts for: another one than
	// Alert.Key after that group was folded.
	GroupKey string `json:"group_key"`
	Ended    bool   `json:"ended,omitempty"` // the group is no more; for sinks that renew
}

// severity is that of the most severe item.
func (m *message) severity() Severity {
	highest := Info
	for i := range m.Items {
		highest = max(highest, m.Items[i].Severity)
	}
	return highest
}

// sinkWants says what a sink is to be told. Its fields do not change.
type sinkWants struct {
	name  string
	wants func(*group) bool
	most  int // groups in a message
	// renews says that the receiver forgets: it is told again of every group
	// while that is open, and of its end.
	renews bool
}

// A turn remembers which pool a sink heard of last, and of each pool which
// alert. It knows no more pools than the policies had.
type turn struct {
	pool  string
	kinds map[string]string // alert by pool
}

// took notes that a sink hears of g. What jumps the queue takes no turn.
func (t *turn) took(g *group) {
	if !g.jumps() {
		t.pool, t.kinds[g.Pool] = g.Pool, g.Alert.Alert
	}
}

// next makes the message that a sink is to send now, or tells how long to wait
// for one; all asks for whatever is not told yet, due or not. A message that
// is under way comes again.
func (s *groups) next(sink *sinkWants, turn *turn, now time.Time, all bool) (*message, time.Duration) {
	if m := s.sending[sink.name]; m != nil {
		return m, 0
	}
	due, wait := s.due(sink, now, all)
	if wait > 0 {
		return nil, wait
	}
	m := &message{ID: allowlists.NewID(), Sink: sink.name, Made: eventTime(now)}
	if sink.renews {
		if m.Items = s.renewed(sink, due, turn); len(m.Items) == 0 {
			return nil, sinkLook // ends that were none
		}
		s.sending[sink.name] = m
		s.dirtyMessages[sink.name] = true
		return m, 0
	}
	due = arrange(due, turn)
	for _, g := range due {
		if len(m.Items) == sink.most || m.severity() == Critical && g.Severity < Critical ||
			len(m.Items) > 0 && (m.Items[0].Closed != "") != (g.Closed != "") {
			break
		}
		told := g.Shares[sink.name]
		m.Items = append(m.Items, item{
			Alert: g.snapshot(), New: g.untold(sink.name), Repeat: told != nil && told.Messages > 0, GroupKey: g.Key,
		})
		turn.took(g)
	}
	s.sending[sink.name] = m
	s.dirtyMessages[sink.name] = true
	return m, 0
}

// due lists the groups of which a sink is to be told now. If there is nothing to
// tell it, it says how long it is until there is; else 0.
func (s *groups) due(sink *sinkWants, now time.Time, all bool) ([]*group, time.Duration) {
	var due []*group
	wait := time.Hour
	for _, g := range s.open {
		at, now := g.dueAt(sink.name), now
		if all {
			now = at
		}
		if !g.owes(sink) {
			if at = g.renewAt(sink); at.IsZero() || all {
				continue
			}
		}
		if left := at.Sub(now); left > 0 {
			wait = min(wait, left)
			continue
		}
		due = append(due, g)
	}
	if len(due) > 0 || len(s.endings[sink.name]) > 0 {
		wait = 0
	}
	return due, wait
}

// arrange puts due groups in the order in which they are sent: the most severe
// first; of one severity metadata-access, which is one group a pool and day and
// so can crowd out nothing; then the pools in turn, beginning behind the one
// that was heard of last; of one pool the kinds of alert in turn, likewise, so
// that a flood of one does not hold up another; of one kind the oldest first.
// That a group is closed comes after all of that.
func arrange(due []*group, last *turn) []*group {
	slices.SortFunc(due, func(a, b *group) int {
		return cmp.Or(cmp.Compare(b.rank(), a.rank()), cmp.Compare(byPool(a), byPool(b)), cmp.Compare(byKind(a), byKind(b)),
			a.Opened.Compare(b.Opened), cmp.Compare(a.Key, b.Key))
	})
	ordered := make([]*group, 0, len(due))
	for _, equals := range runs(due, (*group).rank) {
		var rest []*group
		for _, pool := range runs(equals, byPool) {
			for _, g := range inTurn(pool, byKind, last.kinds[pool[0].Pool]) {
				if g.jumps() {
					ordered = append(ordered, g)
				} else {
					rest = append(rest, g)
				}
			}
		}
		ordered = append(ordered, inTurn(rest, byPool, last.pool)...)
	}
	return ordered
}

// rank orders groups before all else.
func (g *group) rank() int {
	if g.Closed != "" {
		return -1
	}
	return int(g.Severity)
}

func byPool(g *group) string { return g.Pool }
func byKind(g *group) string { return g.Alert.Alert }

// jumps reports whether the group goes before all others of its severity.
func (g *group) jumps() bool { return g.Alert.Alert == AlertMetadataAccess }

// inTurn takes one group of each name after the other, beginning behind the
// last name; due is sorted by name.
func inTurn(due []*group, name func(*group) string, last string) []*group {
	queues := runs(due, name)
	if at := slices.IndexFunc(queues, func(q []*group) bool { return name(q[0]) > last }); at > 0 {
		queues = slices.Concat(queues[at:], queues[:at])
	}
	ordered := make([]*group, 0, len(due))
	for len(ordered) < len(due) {
		for i, queue := range queues {
			if len(queue) > 0 {
				ordered = append(ordered, queue[0])
				queues[i] = queue[1:]
			}
		}
	}
	return ordered
}

// runs cuts sorted groups where what they have in common changes.
func runs[T comparable](due []*group, common func(*group) T) (cut [][]*group) {
	for i, g := range due {
		if i == 0 || common(g) != common(due[i-1]) {
			cut = append(cut, nil)
		}
		cut[len(cut)-1] = append(cut[len(cut)-1], g)
	}
	return cut
}

// delivered notes that a sink's message arrived.
func (s *groups) delivered(sink string, now time.Time) {
	m := s.sending[sink]
	if m == nil {
		return
	}
	for i := range m.Items {
		if g := s.open[m.Items[i].GroupKey]; g != nil {
			_, renews := s.endings[sink]
			if before := g.share(sink); renews && before.Messages > 0 && before.Severity < m.Items[i].Severity {
				s.ending(sink, g, before.Severity) // to its receiver that was another alert
			}
			g.told(sink, &m.Items[i], s.times, now)
			s.touch(g)
		}
	}
	s.forgetMessage(sink)
}

// takeBack is forgetMessage for a message that can be made anew: a summary, whose
// day is over, stays as it is.
func (s *groups) takeBack(sink string) {
	if m := s.sending[sink]; m != nil && m.Day == nil {
		s.forgetMessage(sink)
	}
}

// forgetMessage ends a sink's message without a delivery; what it told is due again.
func (s *groups) forgetMessage(sink string) {
	delete(s.sending, sink)
	s.dirtyMessages[sink] = true
}
