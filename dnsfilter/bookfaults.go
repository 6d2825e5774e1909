package dnsfilter

import (
	"errors"
	"io/fs"
	"os"
)

// The states of the kept book that Config.BookFault is told of.
const (
	BookFailing = "failing"
	BookMissing = "missing"
	BookDamaged = "damaged"
	BookWell    = "recovered"
)

// lost reports whether the file is not the one at its path any more, or not as
// long as what was written, so that all of it has to be written again. What it
// finds it says.
func (s *bookStore) lost() bool {
	if s.file == nil {
		return false
	}
	own, err := s.file.Stat()
	if err != nil {
		return false // the next write tells
	}
	there, err := os.Lstat(s.path)
	state, cause := BookMissing, "the file was deleted"
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		cause = "the file is out of reach: " + bareError(err)
	case !os.SameFile(own, there):
		state, cause = BookDamaged, "the file was replaced by another"
	case own.Size() != s.size:
		state, cause = BookDamaged, "the file has not what was written to it"
	default:
		return false
	}
	s.log.Warn().Str("file", s.path).Str("cause", cause).Msg("the kept book of answers was not left alone; it is written anew")
	s.fault(state, cause, true)
	s.troubled = true
	return true
}

// bareError is what an error says without the path in it.
func bareError(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err.Error()
	}
	return err.Error()
}

// bookFault counts a fault of the kept book, and passes on what is new.
func (s *Server) bookFault(state, cause string, news bool) {
	switch state {
	case BookFailing:
		s.metrics.bookFailures.Inc()
	case BookMissing, BookDamaged:
		s.metrics.bookFaults.WithLabelValues(state).Inc()
	}
	if news && s.cfg.BookFault != nil {
		s.cfg.BookFault(state, cause)
	}
}
