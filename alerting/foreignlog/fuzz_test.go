package foreignlog_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/alerting/foreignlog"
)

// The bounds that a record keeps; those of the package.
const (
	longest = 4096 // bytes of a text: 1,024, and twice that for what is escaped
	most    = 64   // of a list
)

// fuzz reads whatever comes as a file of a format: it never panics, every
// record has a time, and every text and list its bound.
func fuzz(f *testing.F, format string, samples ...string) {
	for _, pattern := range samples {
		files, err := filepath.Glob("testdata/" + pattern)
		if err != nil || len(files) == 0 {
			f.Fatal(pattern, err)
		}
		for _, name := range files {
			data, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
			for line := range bytes.Lines(data) {
				f.Add(line)
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		source, err := foreignlog.Probe("-", foreignlog.FormatNamed(format), options, bytes.NewReader(data))
		if err != nil {
			return // broken gzip
		}
		for {
			r, err := source.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return
			}
			check(t, &r)
		}
		if s := source.Stats; s.Skipped > s.Lines || len(s.SkippedAt) > 5 {
			t.Errorf("the counts are %+v", s)
		}
	})
}

func check(t *testing.T, r *foreignlog.Record) {
	t.Helper()
	if r.Time.IsZero() || r.Line == 0 || (r.Query != nil) == (r.Conn != nil) && r.Event == nil {
		t.Errorf("a record without a time, a line or a kind: %+v", r)
	}
	if q := r.Query; q != nil {
		if len(q.Answers) > most || len(q.CNAMEs) > most+1 || !q.Client.IsValid() || q.Took < 0 || q.TTL < 0 {
			t.Errorf("out of bounds: %+v", q)
		}
		bounded(t, append([]string{q.Name, q.Type, q.RCode, q.Upstream}, q.CNAMEs...)...)
	}
	if c := r.Conn; c != nil {
		if !c.Client.IsValid() || c.Took < 0 || c.Sent < 0 || c.Received < 0 || c.Via == "" {
			t.Errorf("out of bounds: %+v", c)
		}
		bounded(t, c.Host, c.SNI, c.ALPN, c.Method, c.Header, c.Error, c.UID, c.Service)
	}
}

func bounded(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if len(text) > longest {
			t.Errorf("a text of %d bytes", len(text))
		}
	}
}

func FuzzZeekTSV(f *testing.F)       { fuzz(f, "zeek", "zeek-*.log") }
func FuzzZeekJSON(f *testing.F)      { fuzz(f, "zeek-json", "zeek.json.log") }
func FuzzSquid(f *testing.F)         { fuzz(f, "squid", "squid.log") }
func FuzzSquidCombined(f *testing.F) { fuzz(f, "squid-combined", "squid-co*.log") }
func FuzzDnsmasq(f *testing.F)       { fuzz(f, "dnsmasq", "dnsmasq*.log") }
func FuzzUnbound(f *testing.F)       { fuzz(f, "unbound", "unbound*.log") }
func FuzzCoreDNS(f *testing.F)       { fuzz(f, "coredns", "coredns.log") }
func FuzzDetect(f *testing.F)        { fuzz(f, "", "*.log") }

// TestLinesAreBounded: a line over 1 MiB is counted and left out, whatever its
// length; those around it are read.
func TestLinesAreBounded(t *testing.T) {
	good := "1795425057.446      2 10.20.0.7 TCP_MISS/200 1152 GET http://good.example/ - HIER_DIRECT/198.51.100.7 text/html\n"
	for _, length := range []int{1<<20 + 1, 1 << 21, 5 << 20} {
		text := good + strings.Repeat("x", length) + "\n" + good + "\n" + strings.TrimSuffix(good, "\n")
		source, err := foreignlog.Probe("-", nil, options, strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = source.Next()
		}
		if s := source.Stats; s.Records != 3 || s.Skipped != 1 || s.SkippedAt[0] != 2 || s.Lines != 5 {
			t.Errorf("a line of %d bytes: %+v", length, s)
		}
	}
}
