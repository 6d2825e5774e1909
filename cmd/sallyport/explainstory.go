package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"slices"
)

// The bounds of a story.
const (
	maxStory       = 200 // lines, and ids
	maxStoryPasses = 4   // over a log: each finds what the last one pointed to
)

// A story is what belongs to an id: its own lines, the question whose answer a
// connection used, the connections that used the answer to a question, and the
// alerts about any of them.
type story struct {
	asked string
	own   map[string]bool // ids whose lines belong to it
	lines []storyLine
}

// A storyLine is a line with the id that it has.
type storyLine struct {
	text []byte
	id   string
	kind string
}

func newStory(id string) *story { return &story{asked: id, own: map[string]bool{id: true}} }

// take takes a line if it belongs to the story, and notes what it points to. Of
// an alert, and of a connection's progress, the latest line stands for all.
func (s *story) take(line []byte) {
	var e loggedEvent
	if json.Unmarshal(line, &e) != nil {
		return
	}
	tells := slices.ContainsFunc(e.Evidence, func(id string) bool { return s.own[id] })
	if !s.own[e.ID] && e.DNSID != s.asked && !tells {
		return
	}
	switch {
	case e.Kind != "alert":
		s.wants(e.ID, e.DNSID)
	case e.ID == s.asked:
		s.wants(e.Evidence...)
	}
	kind := e.Kind + e.Phase
	if kind == "alert" || e.Phase == "progress" {
		s.lines = slices.DeleteFunc(s.lines, func(l storyLine) bool { return l.id == e.ID && l.kind == kind })
	}
	if len(s.lines) < maxStory {
		s.lines = append(s.lines, storyLine{bytes.Clone(line), e.ID, kind})
	}
}

// wants notes ids whose lines belong to the story, at most maxStory.
func (s *story) wants(ids ...string) {
	for _, id := range ids {
		if id != "" && len(s.own) < maxStory {
			s.own[id] = true
		}
	}
}

// mayTell is a quick look at a line of a log: whether it has an id of the story
// anywhere.
func (s *story) mayTell(line []byte) bool {
	for id := range s.own {
		if bytes.Contains(line, []byte(id)) {
			return true
		}
	}
	return false
}

// texts are the lines, in the order in which they were written.
func (s *story) texts() [][]byte {
	var texts [][]byte
	for _, l := range s.lines {
		texts = append(texts, l.text)
	}
	return texts
}

// storyOf reads a log, packed with gzip or not, for the story of an id.
func storyOf(id, path string) (lines [][]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	file, err := seekable(f)
	if err != nil {
		return nil, err
	}
	if file != f {
		defer file.Close()
	}
	s := newStory(id)
	for range maxStoryPasses {
		known := len(s.own)
		s.lines = nil
		if err := s.read(file); err != nil {
			return nil, err
		}
		if len(s.own) == known {
			break
		}
	}
	return s.texts(), nil
}

// seekable is a file that can be read more than once: f, or a copy of it that
// has no name any more.
func seekable(f *os.File) (*os.File, error) {
	if info, err := f.Stat(); err != nil || info.Mode().IsRegular() {
		return f, err
	}
	file, err := os.CreateTemp("", "sallyport-explain-")
	if err != nil {
		return nil, err
	}
	if err = os.Remove(file.Name()); err == nil {
		_, err = io.Copy(file, f)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// read goes once through a log.
func (s *story) read(file *os.File) error {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	in := bufio.NewReaderSize(file, 64<<10)
	if magic, _ := in.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		unpacked, err := gzip.NewReader(in)
		if err != nil {
			return err
		}
		in = bufio.NewReaderSize(unpacked, 64<<10)
	}
	scanner := bufio.NewScanner(in)
	scanner.Buffer(make([]byte, 0, 64<<10), maxEventLine)
	for scanner.Scan() {
		if s.mayTell(scanner.Bytes()) {
			s.take(scanner.Bytes())
		}
	}
	return scanner.Err()
}

// storyFrom asks a daemon for the lines of an id and of what they point to. It
// knows decisions and alerts by their own id only, so that the alerts about a
// decision are not in it.
func storyFrom(id string, ask func(id string) ([][]byte, error)) ([][]byte, error) {
	s := newStory(id)
	var found [][]byte
	asked := make(map[string]bool)
	for next := id; next != ""; {
		asked[next] = true
		lines, err := ask(next)
		if err != nil {
			return nil, err
		}
		if next == id && len(lines) == 0 {
			return nil, nil
		}
		for _, line := range lines {
			s.take(line)
			found = append(found, line)
		}
		next = ""
		for other := range s.own {
			if !asked[other] && (next == "" || other < next) {
				next = other
			}
		}
	}
	slices.SortStableFunc(found, func(a, b []byte) int { return bytes.Compare(timeOf(a), timeOf(b)) })
	return found, nil
}

// timeOf is the time of a line, which sorts as text.
func timeOf(line []byte) []byte {
	var e loggedEvent
	_ = json.Unmarshal(line, &e)
	return []byte(e.Time)
}

// ownLog is a log that can be read here; "" if it cannot, or is no file.
func ownLog(events string) string {
	if info, err := os.Stat(events); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	f, err := os.Open(events)
	if err != nil {
		return ""
	}
	f.Close()
	return events
}
