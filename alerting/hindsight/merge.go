package hindsight

import (
	"container/heap"
	"errors"
	"io"
	"slices"
	"strconv"
	"time"

	"sallyport/alerting/foreignlog"
)

// maxAhead bounds the records of one file that are held to sort them.
const maxAhead = 1 << 15

// An item is a record with the file it is from.
type item struct {
	record  foreignlog.Record
	file    int // the index of its source
	name    string
	answers bool // its format shows answers
}

// id names the record: its file and line.
func (it *item) id() string { return it.name + ":" + strconv.Itoa(it.record.Line) }

// A merger gives the records of all sources in the order of their times, as far
// as each source is in order within its window. A source is opened when its
// time comes.
type merger struct {
	later  []*stream // not opened yet, by their first time
	open   streams   // by the time of their next record
	latest time.Time // given so far
	late   int       // records given after a later one
	last   []*stream // by file; nil for one that is not opened yet, or never
}

// A stream is one source with the records of it that are sorted.
type stream struct {
	source *foreignlog.Source
	file   int
	ahead  records
	newest time.Time // read so far
	ended  bool
}

func newMerger(sources []*foreignlog.Source) *merger {
	m := &merger{last: make([]*stream, len(sources))}
	for i, source := range sources {
		if !source.First.IsZero() {
			m.later = append(m.later, &stream{source: source, file: i})
		}
	}
	slices.SortStableFunc(m.later, func(a, b *stream) int { return a.source.First.Compare(b.source.First) })
	return m
}

// next gives the next record; io.EOF at the end of all.
func (m *merger) next() (item, error) {
	for len(m.later) > 0 && (len(m.open) == 0 || !m.later[0].source.First.Add(-m.later[0].source.Window()).After(m.open[0].head().Time)) {
		s := m.later[0]
		m.later, m.last[s.file] = m.later[1:], s
		if err := s.fill(); err != nil {
			return item{}, err
		}
		if len(s.ahead) > 0 {
			heap.Push(&m.open, s)
		}
	}
	if len(m.open) == 0 {
		return item{}, io.EOF
	}
	s := m.open[0]
	it := item{record: heap.Pop(&s.ahead).(foreignlog.Record), file: s.file, name: s.source.Name, answers: s.source.Format.Answers}
	if err := s.fill(); err != nil {
		return item{}, err
	}
	if len(s.ahead) == 0 {
		heap.Pop(&m.open)
	} else {
		heap.Fix(&m.open, 0)
	}
	if at := it.record.Time; at.Before(m.latest.Add(-time.Second)) {
		m.late++
	} else if at.After(m.latest) {
		m.latest = at
	}
	return it, nil
}

// goesOn reports whether a file that was opened has records to come.
func (m *merger) goesOn(file int) bool {
	s := m.last[file]
	return s != nil && !(s.ended && len(s.ahead) == 0)
}

// head is the next record.
func (s *stream) head() *foreignlog.Record { return &s.ahead[0] }

// fill reads until no record that is still to come can be the next, if the
// source is in order within its window.
func (s *stream) fill() error {
	for !s.ended && len(s.ahead) < maxAhead && (len(s.ahead) == 0 || s.newest.Sub(s.ahead[0].Time) <= s.source.Window()) {
		r, err := s.source.Next()
		if errors.Is(err, io.EOF) {
			s.ended = true
			return nil
		}
		if err != nil {
			return err
		}
		if r.Time.After(s.newest) {
			s.newest = r.Time
		}
		heap.Push(&s.ahead, r)
	}
	return nil
}

// records are a heap by time, then line.
type records []foreignlog.Record

func (h records) Len() int { return len(h) }
func (h records) Less(i, j int) bool {
	return h[i].Time.Before(h[j].Time) || h[i].Time.Equal(h[j].Time) && h[i].Line < h[j].Line
}
func (h records) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *records) Push(r any)   { *h = append(*h, r.(foreignlog.Record)) }
func (h *records) Pop() any {
	old := *h
	r := old[len(old)-1]
	old[len(old)-1] = foreignlog.Record{}
	*h = old[:len(old)-1]
	return r
}

// streams are a heap by the time of the next record, then by order of the files.
type streams []*stream

func (h streams) Len() int { return len(h) }
func (h streams) Less(i, j int) bool {
	a, b := h[i].head().Time, h[j].head().Time
	return a.Before(b) || a.Equal(b) && h[i].file < h[j].file
}
func (h streams) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *streams) Push(s any)   { *h = append(*h, s.(*stream)) }
func (h *streams) Pop() any {
	old := *h
	s := old[len(old)-1]
	*h = old[:len(old)-1]
	return s
}
