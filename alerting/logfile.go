package alerting

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// The times and bounds of looking after the log's file.
const (
	lookPause = time.Second      // between two looks at the path, and at whether lines go out
	moveGrace = 30 * time.Second // how long SIGHUP may take after the file was renamed, as a rotation does
	carryMost = 4 << 20          // bytes of a deleted file that the new one begins with
)

// The faults of the log's file, and of writing it: words of
// sallyport_log_faults_total and of the event log-degraded.
const (
	logFailing  = "failing"  // it cannot be written, or writing takes too long
	logDropping = "dropping" // lines are lost
	logMissing  = "missing"  // its file was deleted
	logReplaced = "replaced" // its file was deleted, and another lies at its path
	logMoved    = "moved"    // its file was renamed, and nobody sent SIGHUP
	logWell     = "recovered"
)

// A logFault is what was found wrong with the file.
type logFault struct{ state, cause string }

// errDeleted is what write says where the file is deleted again and again.
var errDeleted = errors.New("the file is deleted as soon as it is made")

// look notices that the open file is not the one at the path any more. A file
// without a name is lost to every reader, so what is not known to have been in
// it before is written again, into a new one. A renamed one is what a rotation
// leaves: it takes lines until SIGHUP, or until moveGrace is over. offset is as
// for reopen. Only the writing goroutine calls it.
func (s *logSink) look(offset int64, now time.Time) error {
	if s.path == "" || s.file == nil {
		return nil
	}
	own := s.stat()
	if own == nil {
		return nil
	}
	if s.nameless(own) {
		return s.recreate(offset)
	}
	there, err := os.Stat(s.path)
	if err == nil && os.SameFile(own, there) {
		s.away, s.told = time.Time{}, false
		return nil
	}
	if s.away.IsZero() {
		s.away = now
	}
	if now.Sub(s.away) < s.grace() {
		return nil
	}
	s.away = now
	fault := logFault{logMoved, "the file was moved away and no SIGHUP came; lines go to a file at its path again"}
	if err = s.reopen(offset); err != nil {
		fault.cause = "the file was moved away, where lines still go; opening the path again: " + err.Error()
	}
	if !s.told {
		s.found = append(s.found, fault)
	}
	s.told = err != nil
	return nil
}

// grace is how long a renamed file is left in peace.
func (s *logSink) grace() time.Duration {
	if s.patience > 0 {
		return s.patience
	}
	return moveGrace
}

// stat describes the open file; nil if it is no regular one.
func (s *logSink) stat() os.FileInfo {
	if s.path == "" || s.file == nil {
		return nil
	}
	own, err := s.file.Stat()
	if err != nil || !own.Mode().IsRegular() {
		return nil
	}
	return own
}

// nameless reports whether the open file, which own describes, has no name any
// more. Where only its name on another machine is gone, as with a file that is
// mounted alone, or a file system counts no names, the path still leads to it.
func (s *logSink) nameless(own os.FileInfo) bool {
	if own == nil {
		return false
	}
	if stat, ok := own.Sys().(*syscall.Stat_t); !ok || stat.Nlink > 0 {
		return false
	}
	there, err := os.Stat(s.path)
	return err != nil || !os.SameFile(own, there)
}

// recreate is remake for a file that nobody should have deleted.
func (s *logSink) recreate(offset int64) error {
	fault := logFault{logMissing, "the file was deleted; a new one was made"}
	if _, err := os.Stat(s.path); err == nil {
		fault = logFault{logReplaced, "the file was replaced by another; lines go to that one"}
	}
	err := s.remake(offset)
	if err == nil {
		s.found = append(s.found, fault)
	}
	return err
}

// remake goes on in a new file, or in what lies at the path now. The chunk
// under way goes there from its begin, behind what the reader of events would
// miss after a crash. If it fails everything is as it was.
func (s *logSink) remake(offset int64) error {
	file, base, torn, err := openLog(s.path)
	if err != nil {
		return fmt.Errorf("the file was deleted and cannot be made again: %w", withoutPath(err))
	}
	if !torn {
		base = s.carryOver(offset, file, base)
	}
	s.done = 0
	s.swap(file, segment{from: offset, base: base}, torn)
	return nil
}

// placeHere is the place in the open file that has an offset, or the begin of
// what was written there; zero if it has no places.
func (s *logSink) placeHere(offset int64) Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	newest := s.segments[len(s.segments)-1]
	place := newest.base
	if !place.IsZero() {
		place.Offset += max(0, offset-newest.from)
	}
	return place
}

// carryOver gives a new file, whose end is base, the lines of the old one that
// lie behind the kept place, all of them where that is in another file: nobody
// else has them. It returns the new end. What
// does not work, as on a full disk, is left out.
func (s *logSink) carryOver(offset int64, file *os.File, base Position) Position {
	if s.kept == nil {
		return base
	}
	from, to := s.kept(), s.placeHere(offset)
	if base.IsZero() || from.IsZero() || to.IsZero() {
		return base
	}
	if !from.SameFile(to) { // as before resume has read what it was opened with
		from = beginOf(to)
	}
	if from.Offset >= to.Offset {
		return base
	}
	lines, _, err := linesFrom(s.file, max(from.Offset, to.Offset-carryMost), to.Offset)
	if err == nil {
		_, err = io.Copy(file, lines)
	}
	end, bad := placeOf(file)
	if err == nil && bad == nil {
		return end
	}
	_ = file.Truncate(base.Offset) // a line that stays torn is ended at the next start
	if end, bad = placeOf(file); bad == nil {
		return end
	}
	return base
}
