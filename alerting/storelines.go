package alerting

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strconv"
	"unicode/utf8"
)

// A store's file is text: each line is the crc32c of what follows, in eight hex
// digits, a space, and JSON. The first line says what the file is. Then come the
// records of each commit, and the line that ends it: records without one are
// those of a commit that a crash cut off, and do not count.
const (
	storeHeader  = `{"sallyport":"alerts","v":1}`
	storeLineMax = 16 << 20 // bytes; the longest of ours are the jobs that a pool counts
	storeFileMax = 1 << 30  // bytes that are read
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	errNoStore    = errors.New("its first line is not that of a store")
	errLaterStore = errors.New("it was written by a later version of Sallyport; run that, or move the file away")
)

// A storeLine is one line behind the first.
type storeLine struct {
	Kind  string          `json:"kind,omitempty"`
	Key   string          `json:"key,omitempty"`
	Value json.RawMessage `json:"value,omitempty"` // absent: the record is removed
	// Commit ends a commit of so many records.
	Commit int `json:"commit,omitempty"`
}

// appendStoreLine appends a line with its sum.
func appendStoreLine(out, body []byte) []byte {
	out = fmt.Appendf(out, "%08x ", crc32.Checksum(body, castagnoli))
	return append(append(out, body...), '\n')
}

// encodeCommit makes the lines of one commit; none of no changes.
func encodeCommit(changes []Change) (out []byte, err error) {
	for _, c := range changes {
		body, err := json.Marshal(storeLine{Kind: c.Kind, Key: c.Key, Value: c.Value})
		if err != nil {
			return nil, err
		}
		out = appendStoreLine(out, body)
	}
	if len(changes) == 0 {
		return nil, nil
	}
	return appendStoreLine(out, []byte(`{"commit":`+strconv.Itoa(len(changes))+`}`)), nil
}

// cloned is a change that shares nothing with its maker.
func cloned(c Change) Change {
	c.Value = slices.Clone(c.Value)
	return c
}

// storeRead counts what readStore saw.
type storeRead struct {
	bad int // lines that are not as they were written
}

// readStore calls put for every record that counts, in order, in time that
// grows with the file only and at most storeFileMax. Behind a damaged line it
// reads on. A last line without end is what a crash leaves, and no damage.
func readStore(file io.Reader, put func(Change)) (read storeRead, err error) {
	in := bufio.NewReaderSize(io.LimitReader(file, storeFileMax), 64<<10)
	var pending []Change
	for first := true; ; first = false {
		body, whole, err := nextStoreLine(in)
		if errors.Is(err, errTorn) {
			read.bad++
			err = io.EOF
		}
		if first {
			if later := checkStoreHeader(body, whole); errors.Is(later, errLaterStore) {
				return read, later
			} else if later != nil {
				read.bad++
			}
			if err == nil {
				continue
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return read, nil
		case err != nil:
			return read, err
		}
		var line storeLine
		switch {
		case !whole || json.Unmarshal(body, &line) != nil:
			read.bad++
		case line.Commit > 0:
			for _, c := range pending {
				put(c)
			}
			if len(pending) != line.Commit && read.bad == 0 {
				read.bad++
			}
			pending = nil
		case line.Kind != "":
			pending = append(pending, Change{Kind: line.Kind, Key: line.Key, Value: line.Value})
		}
	}
}

// checkStoreHeader looks at the first line.
func checkStoreHeader(body []byte, whole bool) error {
	var header struct {
		Sallyport string `json:"sallyport"`
		V         int    `json:"v"`
	}
	switch {
	case !whole || json.Unmarshal(body, &header) != nil || header.Sallyport != "alerts":
		return errNoStore
	case header.V > 1:
		return errLaterStore
	default:
		return nil
	}
}

// errTorn is what nextStoreLine says of a last line that is none of ours.
var errTorn = errors.New("the last line is torn")

// nextStoreLine gives the JSON of the next line, and whether its sum fits. A
// line that is too long for ours is passed by. At the end, or in a last line
// that is cut off, the error is io.EOF; errTorn if none of ours begins like it.
func nextStoreLine(in *bufio.Reader) (body []byte, whole bool, err error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		if len(line) <= storeLineMax {
			line = append(line, part...)
		}
		if err == nil {
			break
		}
		if errors.Is(err, io.EOF) && !beginsLikeOurs(line) {
			return nil, false, errTorn
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, false, err
		}
	}
	line = bytes.TrimSuffix(line, []byte("\n"))
	if len(line) < 9 || len(line) > storeLineMax || line[8] != ' ' {
		return nil, false, nil
	}
	sum, err := strconv.ParseUint(string(line[:8]), 16, 32)
	if err != nil {
		return nil, false, nil
	}
	return line[9:], crc32.Checksum(line[9:], castagnoli) == uint32(sum), nil
}

// beginsLikeOurs reports whether a line of ours, cut off anywhere, may be this.
func beginsLikeOurs(line []byte) bool {
	if len(line) > storeLineMax || bytes.ContainsFunc(line, func(r rune) bool { return r < ' ' }) {
		return false
	}
	for cut := 0; cut < utf8.UTFMax && cut <= len(line); cut++ {
		if utf8.Valid(line[:len(line)-cut]) {
			return true
		}
	}
	return false
}
