package alerting_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"
)

// A stormLog follows the event log while a storm goes on, as tail -f does: it
// counts the lines of records, each by its serial number, and notes when the
// alert of each probe was there.
type stormLog struct {
	file *os.File
	stop chan struct{}
	done sync.WaitGroup

	// Of the following goroutine, until done.
	seen    []byte // by serial number: how often; of one size, as what it grows to would count as memory of the storm's
	records int64
	other   int // lines that are neither records nor alerts nor of the system
	probes  map[string]time.Time
}

// followLog begins to follow the log at path, which is there.
func followLog(t testing.TB, path string) *stormLog {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	l := &stormLog{file: file, stop: make(chan struct{}), seen: make([]byte, probeBase+1<<16), probes: make(map[string]time.Time)}
	l.done.Go(func() { l.follow() })
	t.Cleanup(l.end)
	return l
}

// end reads what is left and stops. It may be called again.
func (l *stormLog) end() {
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.done.Wait()
	l.file.Close()
}

func (l *stormLog) follow() {
	buffer, held := make([]byte, 1<<20), 0
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for last := false; ; {
		n, err := l.file.Read(buffer[held:])
		held += n
		if n > 0 {
			end := bytes.LastIndexByte(buffer[:held], '\n') + 1
			l.lines(buffer[:end])
			held = copy(buffer, buffer[end:held])
			continue
		}
		if last || err != nil && !errors.Is(err, io.EOF) {
			return
		}
		select {
		case <-tick.C:
		case <-l.stop:
			last = true
		}
	}
}

func (l *stormLog) lines(lines []byte) {
	for line := range bytes.Lines(lines) {
		switch kind := valueOf(line, "kind"); kind {
		case "dns", "conn":
			l.records++
			serial, err := strconv.Atoi(valueOf(line, "id")[1:])
			if err != nil || serial < 0 || serial >= len(l.seen) {
				l.other++
				continue
			}
			l.seen[serial]++
		case "alert":
			if client := valueOf(line, "client"); valueOf(line, "pool") == "probe" && l.probes[client].IsZero() && valueOf(line, "alert") == "denied-then-direct" {
				l.probes[client] = time.Now()
			}
		case "system":
		default:
			l.other++
		}
	}
}

// valueOf is a value of a line that is plain text; "" if it is not there.
func valueOf(line []byte, key string) string {
	_, rest, _ := bytes.Cut(line, []byte(`"`+key+`":"`))
	value, _, _ := bytes.Cut(rest, []byte(`"`))
	return string(value)
}
