package dnsfilter

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"slices"
	"time"

	"sallyport/allowlists"
)

// bookHeader is the first line of a kept book.
const bookHeader = `{"sallyport_book":1}`

// maxBookLine bounds a line of a kept book, in bytes: sixteen of the longest
// names are a third of it.
const maxBookLine = 16 << 10

// bookLine is one line of a kept book: the names that stand for an address to
// one client, newest first. A later line for the same adds to it.
type bookLine struct {
	Pool   string     `json:"pool"`
	Client netip.Addr `json:"client"` // allowlists.Subject.Key
	Addr   netip.Addr `json:"addr"`
	Names  []keptName `json:"names"`
}

// keptName is one name in canonical form and until when it stands, in seconds
// since 1970.
type keptName struct {
	Name  string `json:"name"`
	Until int64  `json:"until"`
}

// errNoBook is the error of a file that does not begin as a kept book does.
var errNoBook = errors.New("it is no book of answers")

// readBook calls visit for each line of a kept book. bad counts the lines that
// are none; the last one, if its end was never written, is not counted. The
// error is errNoBook, or that of r.
func readBook(r io.Reader, visit func(bookLine)) (bad int, err error) {
	lines := bufio.NewReaderSize(r, maxBookLine)
	if raw, err := lines.ReadSlice('\n'); err != nil && err != io.EOF && err != bufio.ErrBufferFull {
		return 0, err
	} else if string(bytes.TrimSuffix(raw, []byte("\n"))) != bookHeader {
		return 0, errNoBook
	}
	for {
		raw, err := lines.ReadSlice('\n')
		switch {
		case err == io.EOF:
			return bad, nil
		case err == bufio.ErrBufferFull:
			bad++
			if err := skipLine(lines); err != nil {
				return bad, err
			}
		case err != nil:
			return bad, err
		default:
			if l, ok := parseBookLine(raw); ok {
				visit(l)
			} else {
				bad++
			}
		}
	}
}

// skipLine reads to the end of a line that is too long.
func skipLine(r *bufio.Reader) error {
	for {
		if _, err := r.ReadSlice('\n'); err != bufio.ErrBufferFull {
			if err == io.EOF {
				return nil
			}
			return err
		}
	}
}

// parseBookLine reads one line, strictly enough that whatever is in the file
// only ever makes what an answer could have made.
func parseBookLine(raw []byte) (l bookLine, ok bool) {
	if err := json.Unmarshal(raw, &l); err != nil || l.Pool == "" || !isPlain(l.Client) || !isPlain(l.Addr) || len(l.Names) > maxNames {
		return bookLine{}, false
	}
	return l, true
}

// isPlain reports whether an address is one, unmapped and without zone.
func isPlain(addr netip.Addr) bool {
	return addr.IsValid() && addr.Zone() == "" && !addr.Is4In6()
}

// restore writes a line into the book: the names that stands lets be and whose
// time is not over, none for longer than until latest.
func (b *book) restore(l bookLine, now, latest time.Time, stands func(pool string, host allowlists.Host) bool) {
	for _, n := range slices.Backward(l.Names) {
		until := time.Unix(min(n.Until, latest.Unix()), 0)
		host, err := allowlists.ParseHost(n.Name)
		if err == nil && host.String() == n.Name && now.Before(until) && stands(l.Pool, host) {
			b.add(account{l.Pool, l.Client}, host, []netip.Addr{l.Addr}, now, until)
		}
	}
}
