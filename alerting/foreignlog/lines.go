package foreignlog

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
)

// Next gives the next record, in the order of the file; io.EOF at its end. It
// opens the file where that is closed.
func (s *Source) Next() (Record, error) {
	for s.next == len(s.ready) {
		if s.ended {
			s.Close()
			return Record{}, io.EOF
		}
		if s.reader == nil {
			if err := s.open(); err != nil {
				return Record{}, err
			}
			s.start()
		}
		s.ready, s.next = s.ready[:0], 0
		if err := s.advance(); err != nil {
			return Record{}, fmt.Errorf("reading %s: %w", s.Name, err)
		}
	}
	r := s.ready[s.next]
	s.next++
	return r, nil
}

// advance reads one line.
func (s *Source) advance() error {
	line, whole, err := s.line()
	if len(line) > 0 || err == nil {
		s.Stats.Lines++
	}
	if len(line) > 0 {
		if counts, ok := s.parser.(interface{ at(line int) }); ok {
			counts.at(s.Stats.Lines)
		}
		s.sum = maphash.Bytes(sums, line)
		if !whole || s.parser.parse(line, s.emit) != nil {
			s.skip()
		}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, gzip.ErrChecksum):
		s.Stats.Cut = true
	case !errors.Is(err, io.EOF):
		return err
	}
	s.ended = true
	s.sum = 0
	s.parser.flush(s.emit)
	return nil
}

// keep takes a record from the parser.
func (s *Source) keep(r Record) {
	if r.Sum = s.sum; r.Line == 0 {
		r.Line = s.Stats.Lines
	}
	if s.Stats.Records == 0 || r.Time.Before(s.Stats.First) {
		s.Stats.First = r.Time
	}
	if r.Time.After(s.Stats.Last) {
		s.Stats.Last = r.Time
	}
	s.Stats.Records++
	s.ready = append(s.ready, r)
}

func (s *Source) skip() {
	s.Stats.Skipped++
	if len(s.Stats.SkippedAt) < maxFaults {
		s.Stats.SkippedAt = append(s.Stats.SkippedAt, s.Stats.Lines)
	}
}

// line reads a line without its end, valid until the next call; whole is false
// for one over maxLine, which is read to its end and thrown away.
func (s *Source) line() (line []byte, whole bool, err error) {
	line, err = s.reader.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = s.reader.ReadSlice('\n')
		}
		return []byte("..."), false, err
	}
	return bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r")), true, err
}

// Close closes the file, if it is open. Standard input stays.
func (s *Source) Close() {
	if s.file != nil {
		s.file.Close()
		s.file = nil
	}
}
