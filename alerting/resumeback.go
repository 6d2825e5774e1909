package alerting

import (
	"os"
	"path/filepath"
	"time"
)

// How far back the log is read at a start.
const (
	recallBytes = 4 << 20        // for what is remembered of events that were taken, such as refused names
	lostBytes   = 32 << 20       // for what a damaged state does not have
	lostAge     = 24 * time.Hour // as long as alerts are kept for a stopped sink
	rotatedLook = 4096           // names in the log's directory among which a rotated file is looked for
)

// beginOf is the begin of the file of p.
func beginOf(p Position) Position {
	p.Offset = 0
	return p
}

// before is the place that many bytes before p, or the begin of its file.
func before(p Position, size int64) Position {
	p.Offset = max(0, p.Offset-size)
	return p
}

// recall shows the reader what comes before the place where it goes on. That
// some of it cannot be read is no reason not to go on.
func (a *Alerting) recall(file *os.File, saved Position, damaged bool, stop <-chan struct{}) {
	size := int64(recallBytes)
	if damaged {
		size = lostBytes
	}
	oldest := time.Now().Add(-lostAge)
	_, err := readEvents(file, before(saved, size), saved.Offset, stop, func(e *Event, _ []byte) {
		if e.Time.After(oldest) {
			a.reader.recall(e)
		}
	})
	if err != nil {
		a.config.Log.Warn().Err(err).Msg("what the log has from before the last stop was not looked at")
	}
}

// readBack hands the reader the events of the last lostBytes and lostAge, as
// nobody knows which of them it took.
func (a *Alerting) readBack(details map[string]any, stop <-chan struct{}) (count replayed, err error) {
	from := before(a.start, lostBytes)
	details["from"], details["lost_state"] = from.Offset, "what was kept of alerts is lost; the last part of the log is read again"
	oldest := time.Now().Add(-lostAge)
	count.skipped, err = readEvents(a.history, from, a.start.Offset, stop, func(e *Event, line []byte) {
		if (e.Kind == KindDNS || e.Kind == KindConn) && e.Time.After(oldest) {
			count.events++
			a.recent.add(e.ID, line)
			a.reader.take(e)
		}
	})
	return count, err
}

// rotated opens the file that the log was when the reader stopped, where it was
// renamed within its directory and is not the log any more; nil if it is not
// there. The caller closes it.
func (a *Alerting) rotated(saved Position) *os.File {
	if saved.IsZero() || saved.SameFile(a.start) {
		return nil
	}
	dir, err := os.Open(filepath.Dir(a.log.sink.path))
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(rotatedLook)
	for _, name := range names {
		path := filepath.Join(dir.Name(), name)
		if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() || !placeIn(info).SameFile(saved) {
			continue
		}
		file, err := os.Open(path)
		if err != nil {
			continue
		}
		if place, err := placeOf(file); err == nil && place.SameFile(saved) && place.Offset >= saved.Offset {
			return file
		}
		file.Close()
	}
	return nil
}

// replayRotated hands the reader the rest of a file that was rotated away while
// nobody ran, and then the file that took its place.
func (a *Alerting) replayRotated(old *os.File, saved Position, stop <-chan struct{}) (replayed, error) {
	end, err := placeOf(old)
	if err != nil {
		return replayed{}, err
	}
	first, err := a.replay(old, saved, end.Offset, false, stop)
	second, newer := a.replay(a.history, beginOf(a.start), a.start.Offset, false, stop)
	if err == nil {
		err = newer
	}
	return replayed{first.events + second.events, first.skipped + second.skipped}, err
}
