package alerting

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// These tests reach states that only a kernel with a full disk would make.

func TestALineThatIsOutInPartStartsAgainInTheNextFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	s := &logSink{path: path}
	if err := s.open(); err != nil {
		t.Fatal(err)
	}
	defer s.close()
	chunk := []byte("{\"a\":1}\n{\"b\":2}\n")
	s.file.Write(chunk[:11])
	s.chunk, s.done = chunk, 11
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := s.reopen(0); err != nil {
		t.Fatal(err)
	}
	if err := s.write(chunk, 0); err != nil {
		t.Fatal(err)
	}
	old, _ := os.ReadFile(path + ".1")
	if now, _ := os.ReadFile(path); string(old) != "{\"a\":1}\n{\"b\n" || string(now) != "{\"b\":2}\n" {
		t.Errorf("old file %q, new file %q", old, now)
	}
	if place := s.place(16); place.Offset != 8 {
		t.Errorf("the second line ends at %v", place)
	}
}

func TestAQueueWithAGapTakesNothingUntilTheGapEnds(t *testing.T) {
	q := newEventQueue(2)
	for i := range 3 {
		q.push(&Event{Count: i}, 1)
	}
	batch := make([]queuedEvent, 1)
	if n := q.pop(batch); n != 1 || batch[0].event.Count != 0 {
		t.Errorf("popped %v", batch[:n])
	}
	q.push(&Event{Count: 3}, 1)
	batch = make([]queuedEvent, 2)
	if n := q.pop(batch); n != 1 || batch[0].event.Count != 1 {
		t.Errorf("popped %v", batch[:n])
	}
	if n := q.pop(batch); n != 0 || q.gap() != 2 || q.empty() {
		t.Errorf("popped %v, gap %d", batch[:n], q.gap())
	}
	if missed := q.endGap(); missed != 2 || !q.empty() {
		t.Errorf("missed %d", missed)
	}
}

func TestTheLinesKeptForExplainAreBounded(t *testing.T) {
	r := newRecentEvents(recentDecisions)
	line := make([]byte, maxLine)
	for i := range 3000 {
		r.add(string(rune('a'+i)), line)
	}
	if r.bytes > recentBytes || r.indexed() != r.count {
		t.Errorf("%d bytes of %d lines kept, %d in order", r.bytes, r.indexed(), r.count)
	}
}

// indexed counts the ids in index.
func (r *recentEvents) indexed() (n int) {
	for _, at := range r.index {
		if at != 0 {
			n++
		}
	}
	return n
}

// TestTheLatestIDsAreFoundAndNoOthers has few slots, in which ids meet and leave
// gaps.
func TestTheLatestIDsAreFoundAndNoOthers(t *testing.T) {
	const limit = 5
	r := newRecentEvents(limit)
	var order []string // oldest first
	lines := map[string][2]string{}
	for n := range 3000 {
		id := fmt.Sprintf("id%d", rand.IntN(12))
		line := string(LineForTest(&Event{Time: time.Unix(0, 0), Kind: KindConn, ID: id, Phase: PhaseClose, Sent: int64(n)}))
		r.add(id, []byte(line))
		if had, known := lines[id]; known {
			lines[id] = [2]string{had[0], line}
		} else {
			lines[id] = [2]string{line, ""}
			if order = append(order, id); len(order) > limit {
				delete(lines, order[0])
				order = order[1:]
			}
		}
		for i := range 12 {
			id := fmt.Sprintf("id%d", i)
			want, known := lines[id]
			events := r.get(id)
			switch {
			case !known && len(events) > 0:
				t.Fatalf("%s is forgotten, and found", id)
			case !known:
			case len(events) == 0, want[1] == "" && len(events) > 1:
				t.Fatalf("%s has %d lines, want %q", id, len(events), want)
			default:
				if latest := cmp.Or(want[1], want[0]); !strings.Contains(latest, fmt.Sprintf(`"sent":%d,`, events[len(events)-1].Sent)) {
					t.Fatalf("%s has %d at last, want %s", id, events[len(events)-1].Sent, latest)
				}
			}
		}
		if r.indexed() != len(order) {
			t.Fatalf("%d ids in the index, want %d", r.indexed(), len(order))
		}
	}
}
