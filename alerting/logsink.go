package alerting

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A logSink is where lines end: a file that may be rotated away, or a stream.
// One goroutine writes; the other methods are safe beside it.
type logSink struct {
	path   string // "" for a stream
	stream io.Writer

	// kept tells up to where the reader of events has kept what it took; nil:
	// nobody keeps it.
	kept func() Position
	// patience is how long SIGHUP may take after a rename; 0 is moveGrace.
	patience time.Duration

	// Of the writing goroutine, which also calls reopen and look.
	chunk []byte     // under way; nil between two
	done  int        // bytes of chunk that are out
	torn  bool       // the file ends within a line, which the next write ends
	away  time.Time  // when the file was first seen not to be at its path; zero: it is
	told  bool       // that it is away and cannot be opened again
	found []logFault // not told yet

	mu       sync.Mutex // guards the rest
	file     *os.File   // only the writing goroutine changes it, and reads it without mu
	segments []segment  // newest last, at most maxSegments
}

// A segment is a stretch of the log's offsets that lies in one file.
type segment struct {
	from int64    // the log's offset at its begin
	base Position // the same place in the file
}

// maxSegments is how many rotations back a place can be told.
const maxSegments = 8

// open opens the sink. A regular file that ends within a line gets its newline.
// It is called once, before the first write.
func (s *logSink) open() error {
	if s.path == "" {
		return nil
	}
	return s.reopen(0)
}

// reopen opens the path again; what is not written yet goes to what is there
// now. On an error the old file stays. offset is that of the chunk under way,
// or of the next one. A rotation may have deleted the old file already.
func (s *logSink) reopen(offset int64) error {
	if s.path == "" {
		return nil
	}
	if s.nameless(s.stat()) {
		return s.remake(offset)
	}
	s.backToLine()
	file, base, torn, err := openLog(s.path)
	if err != nil {
		return withoutPath(err)
	}
	s.swap(file, segment{from: offset + int64(s.done), base: base}, torn)
	return nil
}

// swap puts a file in the old one's place, and closes that.
func (s *logSink) swap(file *os.File, next segment, torn bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != nil {
		s.file.Close()
	}
	s.file, s.torn, s.away = file, torn, time.Time{}
	s.begin(next)
}

// backToLine makes a line that is out in part start again, for the next file
// or the next line of this one. What is out of it stays behind, ended by a
// newline, as a line that no reader takes for an event.
func (s *logSink) backToLine() {
	start := bytes.LastIndexByte(s.chunk[:s.done], '\n') + 1
	if start == s.done || s.file == nil {
		return
	}
	s.file.Write([]byte{'\n'}) // if this fails, the next start ends the line
	s.done = start
}

// begin adds a segment. The caller holds mu.
func (s *logSink) begin(next segment) {
	if len(s.segments) == maxSegments {
		s.segments = append(s.segments[:0], s.segments[1:]...)
	}
	s.segments = append(s.segments, next)
}

// openLog opens or creates a log file for appending and returns its end. What
// is no regular file (a pipe, a device) has no place: the zero Position. A file
// that ends within a line gets its newline; torn says that the disk did not
// take it yet, as when it is full.
func openLog(path string) (file *os.File, end Position, torn bool, err error) {
	flags := os.O_APPEND | os.O_CREATE | os.O_RDWR
	if info, err := os.Stat(path); err == nil && info.Mode().Type() == os.ModeDevice|os.ModeCharDevice {
		flags = os.O_WRONLY
	}
	file, err = os.OpenFile(path, flags, 0o640)
	if err != nil {
		return nil, Position{}, false, err
	}
	end, err = placeOf(file)
	if err == nil && end.Offset > 0 {
		end.Offset, err = endLine(file, end.Offset)
	}
	if err != nil && errors.Is(err, errUnended) && diskFault(err) {
		return file, end, true, nil
	}
	if err != nil {
		file.Close()
		return nil, Position{}, false, err
	}
	return file, end, false, nil
}

// placeOf is the end of a regular file; zero for anything else.
func placeOf(file *os.File) (Position, error) {
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return Position{}, err
	}
	place := placeIn(info)
	place.Born = bornAt(file)
	return place, nil
}

// placeIn is the end of the regular file that info is of, which does not say
// when it was made.
func placeIn(info os.FileInfo) Position {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return Position{}
	}
	return Position{Dev: uint64(stat.Dev), Inode: stat.Ino, Offset: info.Size()}
}

// errUnended is in the error of endLine where the newline could not be written.
var errUnended = errors.New("ending the last line of the event log")

// endLine gives a file of size bytes the newline that a crash kept from it,
// and returns its new size.
func endLine(file *os.File, size int64) (int64, error) {
	var last [1]byte
	if _, err := file.ReadAt(last[:], size-1); err != nil {
		return size, fmt.Errorf("reading the end of the event log: %w", err)
	}
	if last[0] == '\n' {
		return size, nil
	}
	if _, err := file.Write([]byte{'\n'}); err != nil {
		return size, fmt.Errorf("%w: %w", errUnended, err)
	}
	return size + 1, nil
}

// write writes a chunk whose first byte has the given offset. After an error
// the caller comes again with the same chunk, and the rest of it is written.
// When it returns nil the chunk is in a file that had a name afterwards.
func (s *logSink) write(chunk []byte, offset int64) error {
	s.chunk = chunk
	if err := s.writeRest(); err != nil {
		return err
	}
	own := s.stat()
	if s.nameless(own) {
		if err := s.recreate(offset); err != nil {
			return err
		}
		if err := s.writeRest(); err != nil {
			return err
		}
		if own = s.stat(); s.nameless(own) {
			return errDeleted
		}
	}
	s.chunk, s.done = nil, 0
	s.check(own, chunk, offset)
	return nil
}

// writeRest writes what is left of the chunk.
func (s *logSink) writeRest() error {
	out := s.stream
	if s.file != nil {
		out = s.file
	}
	if s.torn {
		if _, err := s.file.Write([]byte{'\n'}); err != nil {
			return withoutPath(err)
		}
		s.torn = false // check sees that what follows lies one byte further on
	}
	for s.done < len(s.chunk) {
		n, err := out.Write(s.chunk[s.done:])
		s.done += max(n, 0)
		if err == nil && n == 0 {
			err = io.ErrShortWrite
		}
		if err != nil {
			return withoutPath(err)
		}
	}
	return nil
}

// check, with what stat says after a chunk, notices that somebody else changed the file's size, as a rotation does
// that copies and truncates. From this chunk on, places count from what is
// there now.
func (s *logSink) check(own os.FileInfo, chunk []byte, offset int64) {
	if own == nil {
		return
	}
	end := placeIn(own)
	if end.IsZero() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.segments[len(s.segments)-1]
	behind := offset + int64(len(chunk))
	if last.base.Offset+behind-last.from == end.Offset {
		return
	}
	from := max(offset, last.from)
	end.Offset, end.Born = max(0, end.Offset-(behind-from)), last.base.Born
	s.begin(segment{from: from, base: end})
}

// place tells where the line that ends at offset ends in a file; zero if that
// is not known.
func (s *logSink) place(offset int64) Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.segments) - 1; i >= 0; i-- {
		if segment := s.segments[i]; segment.from < offset {
			if segment.base.IsZero() {
				return Position{}
			}
			place := segment.base
			place.Offset += offset - segment.from
			return place
		}
	}
	return Position{}
}

// now is the end of the file that is open now; zero for a stream.
func (s *logSink) now() Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return Position{}
	}
	end, _ := placeOf(s.file)
	return end
}

// history is the open file once more, for who reads what it had before; nil
// where it is no regular one. The path may lead to another by now. The caller
// closes it. It is called after open, before the first write.
func (s *logSink) history() (*os.File, error) {
	if s.stat() == nil {
		return nil, nil
	}
	fd, err := unix.FcntlInt(s.file.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("opening the event log once more: %w", err)
	}
	return os.NewFile(uintptr(fd), s.path), nil
}

// interrupt makes a write that hangs return, where the descriptor can do that.
func (s *logSink) interrupt() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != nil {
		return s.file.SetWriteDeadline(time.Now()) == nil
	}
	if d, ok := s.stream.(interface{ SetWriteDeadline(time.Time) error }); ok {
		return d.SetWriteDeadline(time.Now()) == nil
	}
	return false
}

// close closes the file; a stream stays open.
func (s *logSink) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// withoutPath takes the path out of an error: what is wrong is enough, and the
// same error reads the same for every file.
func withoutPath(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// ownStdout opens the standard output on a descriptor of its own: a write to 1
// itself, after the reader went away, would end the process (os/signal,
// SIGPIPE), and with it the gate.
func ownStdout() (*os.File, error) {
	fd, err := unix.FcntlInt(1, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("opening the standard output: %w", err)
	}
	return os.NewFile(uintptr(fd), "stdout"), nil
}
