package dnsfilter

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"sallyport/allowlists"
)

const (
	// keepDelay is how long changes of the book gather before they are written.
	keepDelay = 50 * time.Millisecond
	// keepBatch is how many cells are copied before others use the book.
	keepBatch = 256
	// rewriteEvery is the least time between two rewrites of the file.
	rewriteEvery = 10 * time.Second
	// rewriteSlack is how many lines more than twice the live ones the file may have.
	rewriteSlack = 1024
)

// maxBookFile bounds the file of a book with so many names, in bytes: several
// times what is usual.
func maxBookFile(names int) int64 { return 4<<20 + 2048*int64(names) }

// A bookStore keeps the book of answers in a file over restarts, kill -9
// included: what has changed is appended within 100 ms, by one goroutine. The
// queue to it is the set of changed cells of the book itself, so that it is as
// bounded as the book, and a client that asks in a loop is one line. Nothing
// waits for it. Where the file cannot be written that is counted, and tried
// again by writing all of it.
//
// The file is not synced but when it is rewritten: a power cut may cost answers.
type bookStore struct {
	path  string
	book  *book
	log   zerolog.Logger
	fault func(state, cause string, news bool) // told of each fault; news unless it goes on
	kept  bool                                 // an earlier book was read, whole

	// Until start the opener's, then only the writing goroutine's.
	file      *os.File // nil: there is none yet
	size      int64
	lines     int       // in the file
	live      int       // of those, after the last rewrite
	behind    bool      // the file lacks what only a rewrite brings
	troubled  bool      // it was said that it is not kept
	rewritten time.Time // when that was last tried

	stop    chan struct{}
	done    chan struct{} // closed when the goroutine has ended; nil before start
	closing sync.Once
}

// openBookStore reads the book that a file keeps, as far as stands lets its
// names be, none for longer than longest, and begins the file anew with it. It
// never fails: a file that cannot be read is set aside, and one that cannot be
// written is tried again later; the log says so.
func openBookStore(path string, b *book, longest time.Duration, stands func(string, allowlists.Host) bool, fault func(string, string, bool), log zerolog.Logger) *bookStore {
	s := &bookStore{path: path, book: b, log: log, fault: fault, stop: make(chan struct{})}
	now := time.Now()
	bad, err := s.read(func(l bookLine) { b.restore(l, now, now.Add(longest), stands) })
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil || bad > 0:
		s.setAside(bad, err)
	default:
		s.kept = true
	}
	b.keep()
	s.rewrite()
	return s
}

// read calls visit for what the file keeps.
func (s *bookStore) read(visit func(bookLine)) (bad int, err error) {
	// Not through a link, and not waiting for the writer of a pipe.
	f, err := os.OpenFile(s.path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, errNoBook
	}
	return readBook(io.LimitReader(f, maxBookFile(s.book.limit)), visit)
}

// setAside moves a file away that is damaged. What could be read of it is used.
func (s *bookStore) setAside(bad int, err error) {
	cause := fmt.Sprintf("%d lines are not as they were written", bad)
	if err != nil {
		cause = bareError(err)
	}
	s.fault(BookDamaged, cause, true)
	aside := s.path + ".bad"
	event := s.log.Warn().Str("file", s.path).Int("bad_lines", bad).AnErr("cause", err)
	if err := os.Rename(s.path, aside); err != nil {
		event.AnErr("error", err).Msg("the kept book of answers is damaged")
		return
	}
	event.Str("moved_to", aside).Msg("the kept book of answers is damaged and was set aside")
}

// start begins to write what changes, until close.
func (s *bookStore) start() {
	s.done = make(chan struct{})
	go func() {
		defer close(s.done)
		s.run()
	}()
}

// close writes what is left, and returns when the file is closed. A second call
// does nothing; nor does one on nil.
func (s *bookStore) close() {
	if s == nil {
		return
	}
	s.closing.Do(func() {
		close(s.stop)
		if s.done != nil {
			<-s.done
		}
		if s.file != nil {
			s.file.Close()
		}
	})
}

// run writes what changes, a moment later.
func (s *bookStore) run() {
	for stopping := false; !stopping; {
		select {
		case <-s.book.changed:
			stopping = !s.pause(keepDelay)
		case <-time.After(rewriteEvery): // to look for the file, or try again
		case <-s.stop:
			stopping = true
		}
		s.flush(stopping)
	}
}

// pause waits; false if the store is closed meanwhile.
func (s *bookStore) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.stop:
		return false
	}
}

// flush brings the file up to date: by what has changed, or as a whole where
// that is due, or where it is the last chance.
func (s *bookStore) flush(last bool) {
	s.behind = s.behind || s.lost() || s.size > maxBookFile(s.book.limit)
	if !s.behind {
		s.behind = !s.append()
	}
	due := s.behind || s.lines > 2*s.live+rewriteSlack
	if due && time.Since(s.rewritten) >= rewriteEvery || s.behind && last {
		s.rewrite()
	}
}

// append writes the cells that have changed; false if that failed.
func (s *bookStore) append() bool {
	for {
		lines := s.book.takeUnkept(keepBatch, time.Now())
		if len(lines) == 0 {
			return true
		}
		raw, n := encodeBook(nil, lines)
		written, err := s.file.Write(raw)
		s.size += int64(written)
		s.lines += n
		if err != nil {
			s.complain(err)
			return false
		}
	}
}

// encodeBook appends lines as the file has them, without those that have no
// names left, and counts them.
func encodeBook(raw []byte, lines []bookLine) ([]byte, int) {
	n := 0
	for _, l := range lines {
		if len(l.Names) == 0 {
			continue
		}
		if text, err := json.Marshal(l); err == nil {
			raw = append(append(raw, text...), '\n')
			n++
		}
	}
	return raw, n
}

// rewrite puts a new file in the place of the old: what is in the book now.
func (s *bookStore) rewrite() {
	s.rewritten = time.Now()
	f, size, lines, err := s.writeNew()
	if err != nil {
		s.complain(err)
		s.behind = true
		return
	}
	if s.file != nil {
		s.file.Close()
	}
	if s.troubled {
		s.log.Info().Str("file", s.path).Msg("the book of answers is kept again")
		s.fault(BookWell, "", true)
	}
	s.behind, s.troubled = false, false
	s.file, s.size, s.lines, s.live = f, size, lines, lines
}

// complain counts a write that failed, and says so once.
func (s *bookStore) complain(err error) {
	s.fault(BookFailing, bareError(err), !s.troubled)
	if !s.troubled {
		s.log.Warn().Str("file", s.path).Err(err).Msg("the book of answers cannot be kept: answers of now are unknown after a restart, until this is mended")
	}
	s.troubled = true
}

// writeNew writes the whole book to a new file, and gives that its name.
func (s *bookStore) writeNew() (f *os.File, size int64, lines int, err error) {
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return nil, 0, 0, err
	}
	temporary := s.path + ".new"
	_ = os.Remove(temporary) // of a start that was killed
	if f, err = os.OpenFile(temporary, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err != nil {
		return nil, 0, 0, err
	}
	defer func() {
		if err != nil {
			f.Close()
			_ = os.Remove(temporary)
		}
	}()
	w := bufio.NewWriter(f)
	_, _ = w.WriteString(bookHeader + "\n") // w's first error stays until Flush
	size = int64(len(bookHeader) + 1)
	var raw []byte
	err = s.book.takeAll(time.Now(), func(batch []bookLine) error {
		var n int
		raw, n = encodeBook(raw[:0], batch)
		lines += n
		size += int64(len(raw))
		_, err := w.Write(raw)
		return err
	})
	if err = errors.Join(err, w.Flush()); err != nil {
		return nil, 0, 0, err
	}
	if err = f.Sync(); err != nil {
		return nil, 0, 0, err
	}
	return f, size, lines, os.Rename(temporary, s.path)
}
