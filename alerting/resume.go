package alerting

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// resume hands the reader what was logged after the place where it stopped,
// and returns the place where this run begins. Only a log in a regular file
// with a kept place is read, or one whose kept place was lost to damage.
//
// It reads the file that was opened, which may have no name by now.
func (a *Alerting) resume(stop <-chan struct{}) Position {
	if a.history != nil {
		defer a.history.Close()
	}
	saved, ok := a.reader.resume()
	damaged := a.reader.lost()
	if a.start.IsZero() || !damaged && (!ok || saved.IsZero()) {
		a.reader.begin(a.start)
		return a.start
	}
	details := map[string]any{"from": saved.Offset, "to": a.start.Offset}
	var read replayed
	var err error
	old := a.rotated(saved)
	if old != nil {
		defer old.Close()
	}
	switch {
	case !ok || saved.IsZero():
		read, err = a.readBack(details, stop)
	case saved.SameFile(a.start) && saved.Offset <= a.start.Offset:
		a.recall(a.history, saved, damaged, stop)
		read, err = a.replay(a.history, saved, a.start.Offset, false, stop)
	case saved.SameFile(a.start):
		details["from"], details["whole_file"] = 0, "the log is shorter than what was read of it: it was cut, or it is a new file with the number of one that was deleted, whose last lines are not read"
		read, err = a.replay(a.history, beginOf(a.start), a.start.Offset, false, stop)
	case old != nil:
		details["rotated"] = filepath.Base(old.Name())
		a.recall(old, saved, damaged, stop)
		read, err = a.replayRotated(old, saved, stop)
	default:
		details["from"], details["whole_file"] = 0, "the log is another file than the one that was read last; lines in the old one are not read"
		read, err = a.replay(a.history, beginOf(a.start), a.start.Offset, false, stop)
	}
	details["events"], details["skipped"] = read.events, read.skipped
	if err != nil {
		details["error"] = err.Error()
	}
	a.reader.begin(a.start)
	a.System(SystemResumed, details)
	return a.start
}

// readGap makes good for events that found the queue full: it hands over what
// the file has from last on, and returns how far it came. Without a file the
// events are lost for the correlator, which is counted and said.
func (a *Alerting) readGap(last Position, stop <-chan struct{}) Position {
	a.order.Lock()
	end := a.log.acceptedUpTo()
	missed := a.queue.endGap()
	a.order.Unlock()

	var err error
	if a.out(end, stop) {
		to := a.log.sink.place(end)
		if !to.IsZero() && !last.IsZero() {
			from := last
			if !from.SameFile(to) {
				from = beginOf(to)
			}
			var read replayed
			if read, err = a.replayPath(from, to.Offset, stop); err == nil && from == last {
				a.config.Log.Warn().Int("events", read.events).Msg("the correlator fell behind and read on in the event log")
				return to
			}
			last = to
		}
	} else {
		err = errors.New("the log is stalled")
	}
	a.metrics.dropped.Add(float64(missed))
	details := map[string]any{"missed": missed}
	if err != nil {
		details["error"] = err.Error()
	}
	a.config.Log.Error().Int64("missed", missed).Msg("events did not reach the correlator")
	a.System(SystemEventsMissed, details)
	return last
}

// replayed counts the lines of a replay.
type replayed struct {
	events  int // handed over
	skipped int // torn, foreign, too long
}

// replayPath is replay, of this run, for what lies at the log's path; an error
// if that is not the file of from.
func (a *Alerting) replayPath(from Position, to int64, stop <-chan struct{}) (replayed, error) {
	file, err := os.Open(a.log.sink.path)
	if err != nil {
		return replayed{}, fmt.Errorf("reading the event log: %w", withoutPath(err))
	}
	defer file.Close()
	if now, err := placeOf(file); err != nil || !now.SameFile(from) {
		return replayed{}, errors.New("reading the event log: the file was rotated away")
	}
	return a.replay(file, from, to, true, stop)
}

// replay hands the reader the dns and conn events between two offsets of a file
// of the log, in bounded memory, and those of the system too where they are of
// this run. Our own alert lines are passed by.
func (a *Alerting) replay(file *os.File, from Position, to int64, ofThisRun bool, stop <-chan struct{}) (count replayed, err error) {
	count.skipped, err = readEvents(file, from, to, stop, func(e *Event, line []byte) {
		if e.Kind != KindDNS && e.Kind != KindConn && (e.Kind != KindSystem || !ofThisRun) {
			return
		}
		count.events++
		if e.Kind != KindSystem {
			a.recent.add(e.ID, line)
		}
		if ofThisRun {
			a.hits.missed(e)
			a.watches.show(e, a.watches.now())
		}
		a.reader.take(e)
	})
	return count, err
}

// readEvents calls visit for every event between two offsets of a log file, with its
// line, which is visit's only until it returns; it counts the other lines.
func readEvents(file *os.File, from Position, to int64, stop <-chan struct{}, visit func(e *Event, line []byte)) (skipped int, err error) {
	lines, offset, err := linesFrom(file, from.Offset, to)
	if err != nil {
		return 0, fmt.Errorf("reading the event log: %w", err)
	}
	for {
		line, size, err := nextLine(lines)
		if errors.Is(err, io.EOF) {
			return skipped, nil
		} else if err != nil {
			return skipped, fmt.Errorf("reading the event log: %w", err)
		}
		select {
		case <-stop:
			return skipped, errors.New("reading the event log: stopped")
		default:
		}
		offset += size
		e, err := ParseEvent(line)
		if err != nil {
			skipped++
			continue
		}
		e.Pos = from
		e.Pos.Offset = offset
		visit(&e, line)
	}
}

// linesFrom reads file between two offsets, from a line's begin on: where from
// lies within a line, as in a file that somebody edited, that line is left out.
// It returns the offset at which reading really begins.
func linesFrom(file *os.File, from, to int64) (*bufio.Reader, int64, error) {
	section := io.NewSectionReader(file, from, max(0, to-from))
	lines := bufio.NewReaderSize(section, 2*maxLine)
	if from == 0 {
		return lines, 0, nil
	}
	var before [1]byte
	if _, err := file.ReadAt(before[:], from-1); err != nil {
		return nil, 0, err
	}
	if before[0] == '\n' {
		return lines, from, nil
	}
	_, size, err := nextLine(lines)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return lines, from + size, err
}

// nextLine reads one line with its newline, and its size in the file. Of a
// line that is longer than any of ours only the begin is returned, which is no
// event. A last line without newline counts as one.
func nextLine(lines *bufio.Reader) (line []byte, size int64, err error) {
	line, err = lines.ReadSlice('\n')
	size = int64(len(line))
	if err == io.EOF && size > 0 {
		return line, size, nil
	}
	if !errors.Is(err, bufio.ErrBufferFull) {
		return line, size, err
	}
	line = bytes.Clone(line[:64])
	for errors.Is(err, bufio.ErrBufferFull) {
		var rest []byte
		rest, err = lines.ReadSlice('\n')
		size += int64(len(rest))
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return line, size, err
}
