package foreignlog

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"sync/atomic"
	"time"
)

// The bounds of finding out what a file is.
const (
	headLines = 200         // lines that detection looks at
	headBytes = 64 << 10    // and bytes, unpacked
	buffered  = maxLine + 1 // bytes of a file that are held: a line and its end
	maxFaults = 5           // numbers of lines that Stats lists
)

// A Source is one log file, or standard input. Probe finds its format; Next
// reads it. It is for one goroutine, but for Read.
type Source struct {
	Name   string // as given; "-" is standard input
	Format *Format
	First  time.Time // of its first record; zero if it has none
	Size   int64     // of the file, packed; 0 if it is not known
	Stats  Stats

	options Options
	stdin   io.Reader
	file    io.Closer
	reader  *bufio.Reader
	parser  parser
	emit    func(Record) // keep
	sum     uint64       // of the line under way
	ready   []Record
	next    int // of ready
	ended   bool
	read    atomic.Int64
}

// Stats count what was in a file.
type Stats struct {
	Lines, Records int
	Skipped        int   // lines that are none of the format, or too long
	SkippedAt      []int // the numbers of the first of them
	Cut            bool  // a packed file ends in its middle
	First, Last    time.Time
}

// ErrUnknownFormat says that a file is no log of a known format.
var ErrUnknownFormat = errors.New("not a log of a known format")

// sums makes Record.Sum; the same in all files of one run.
var sums = maphash.MakeSeed()

// Probe opens a file, finds its format (the one given where it is not nil) and
// the time of its first record, and closes it again. stdin is what "-" reads.
// The error is that of the file, or ErrUnknownFormat. An empty file has no
// format, and is no error.
func Probe(name string, format *Format, options Options, stdin io.Reader) (*Source, error) {
	s := &Source{Name: name, Format: format, options: options, stdin: stdin}
	if err := s.open(); err != nil {
		return nil, err
	}
	defer s.Close()
	if s.Format == nil {
		lines, err := s.head()
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", name, err)
		}
		if s.Format = detect(lines); s.Format == nil && len(lines) > 0 {
			return nil, fmt.Errorf("%s: %w", name, ErrUnknownFormat)
		}
		if s.Format == nil {
			s.ended = true
			return s, nil
		}
	}
	if name == "-" { // cannot be read twice; its first record waits
		s.start()
		return s, s.peek()
	}
	s.start()
	err := s.peek()
	s.Close()
	s.reader, s.ready, s.next, s.ended, s.Stats = nil, nil, 0, false, Stats{}
	s.read.Store(0)
	return s, err
}

// peek finds the time of the first record.
func (s *Source) peek() error {
	r, err := s.Next()
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return err
	}
	s.First = r.Time
	s.next-- // it is handed out again
	return nil
}

// Read is how many bytes of the file, packed, were read so far. It is safe for
// concurrent use.
func (s *Source) Read() int64 { return s.read.Load() }

// Window is how far the records may be from the order of their times.
func (s *Source) Window() time.Duration {
	if s.Format == nil {
		return 0
	}
	return s.Format.window
}

// open opens the file, unpacking what gzip packed.
func (s *Source) open() error {
	var in io.Reader = s.stdin
	if s.Name != "-" {
		file, err := os.Open(s.Name)
		if err != nil {
			return err
		}
		info, err := file.Stat()
		if err == nil && info.IsDir() {
			err = fmt.Errorf("%s is a directory; name its files", s.Name)
		}
		if err != nil {
			file.Close()
			return err
		}
		if s.options.Latest.IsZero() {
			s.options.Latest = info.ModTime()
		}
		s.file, s.Size, in = file, info.Size(), file
	}
	raw := bufio.NewReaderSize(&counter{in, &s.read}, 64<<10)
	if magic, _ := raw.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		unpacked, err := gzip.NewReader(raw)
		if err != nil {
			return fmt.Errorf("unpacking %s: %w", s.Name, err)
		}
		s.reader = bufio.NewReaderSize(unpacked, buffered)
		return nil
	}
	s.reader = bufio.NewReaderSize(raw, buffered)
	return nil
}

// head looks at the first lines without reading them.
func (s *Source) head() ([][]byte, error) {
	data, err := s.reader.Peek(headBytes)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, bufio.ErrBufferFull) {
		return nil, err
	}
	var lines [][]byte
	for rest, more := data, true; more && len(lines) < headLines; {
		var line []byte
		line, rest, more = bytes.Cut(rest, []byte("\n"))
		if line = bytes.TrimSuffix(line, []byte("\r")); len(line) > 0 {
			lines = append(lines, line)
		}
	}
	return lines, nil
}

// start makes a parser for the lines to come.
func (s *Source) start() { s.parser, s.emit = s.Format.parser(&s.options), s.keep }

// counter counts what is read.
type counter struct {
	io.Reader
	n *atomic.Int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}
