package alerting

import (
	"os"
	"path/filepath"
	"testing"
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
	for range 3000 {
		r.add(string(rune('a'+len(r.index))), line)
	}
	if r.bytes > recentBytes || len(r.index) != r.count {
		t.Errorf("%d bytes of %d lines kept, %d in order", r.bytes, len(r.index), r.count)
	}
}
