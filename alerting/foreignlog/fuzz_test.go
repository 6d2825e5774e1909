package foreignlog_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
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
	good := `{"ts":1795424936.1,"uid":"C1","id.orig_h":"10.20.0.7","id.resp_p":53,"query":"good.example","qtype_name":"A","more":""}` + "\n"
	for _, length := range []int{1<<20 + 1, 1 << 21, 5 << 20} {
		long := strings.Replace(good, `""`, `"`+strings.Repeat("x", length)+`"`, 1)
		text := good + long + good + "\n" + strings.TrimSuffix(good, "\n")
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

// TestCountsAreBounded: of an answer with many addresses the first are kept, of
// many faulty lines the numbers of the first, and of many questions without an
// answer the latest wait.
func TestCountsAreBounded(t *testing.T) {
	records := func(text string) (all []foreignlog.Record, stats foreignlog.Stats) {
		source, err := foreignlog.Probe("-", nil, options, strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		for r, err := source.Next(); err == nil; r, err = source.Next() {
			all = append(all, r)
		}
		return all, source.Stats
	}
	zeek := "#separator \\x09\n#path\tdns\n#fields\tts\tid.orig_h\tid.resp_p\tquery\tqtype_name\tanswers\n1795424936.1\t10.20.0.7\t53\tgood.example\tA\t93.184.216.1"
	all, stats := records(zeek + strings.Repeat(",93.184.216.2", 500) + strings.Repeat("\nno line", 50))
	if len(all) != 1 || len(all[0].Query.Answers) != most || stats.Skipped != 50 || len(stats.SkippedAt) != 5 {
		t.Errorf("%d records, %d answers, %+v", len(all), len(all[0].Query.Answers), stats)
	}
	dnsmasq := "Nov 23 09:08:54 dnsmasq[7]: query[A] a.example from 10.20.0.7\n"
	answer := "Nov 23 09:08:54 dnsmasq[7]: reply a.example is 93.184.216.34\n"
	var others strings.Builder
	for i := range 5000 {
		others.WriteString(strings.Replace(dnsmasq, "a.example", fmt.Sprintf("b%d.example", i), 1))
	}
	all, _ = records(dnsmasq + others.String() + answer)
	if len(all) != 5001 || len(all[0].Query.Answers) != 0 {
		t.Errorf("of %d questions the oldest still waited: %+v", len(all), all[0].Query)
	}
	for r := range all[:2] {
		if all[r].Line > 2 {
			t.Errorf("record %d is of line %d", r, all[r].Line)
		}
	}
	parent := "1795425057.446      2 10.20.0.7 TCP_TUNNEL/200 1152 CONNECT good.example:443 - FIRSTUP_PARENT/10.0.0.9 -\n"
	if all, _ = records(parent); all[0].Conn.IP.IsValid() {
		t.Errorf("another proxy's address is taken for the destination's: %+v", all[0].Conn)
	}
}

// TestPackedFilesThatEndEarly give what could be unpacked, and say so.
func TestPackedFilesThatEndEarly(t *testing.T) {
	var plain strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&plain, "17954250%02d.446      2 10.20.0.7 TCP_MISS/200 1152 GET http://good%d.example/ - HIER_DIRECT/198.51.100.7 text/html\n", i%60, i*i)
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := io.WriteString(w, plain.String()); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		data []byte
		cut  bool
		most int
	}{
		{"whole", packed.Bytes(), false, 5000}, {"its half", packed.Bytes()[:packed.Len()/2], true, 4000}, {"without its checksum", packed.Bytes()[:packed.Len()-4], true, 5000},
	} {
		source, err := foreignlog.Probe("-", nil, options, bytes.NewReader(c.data))
		if err != nil {
			t.Fatal(c.name, err)
		}
		for err == nil {
			_, err = source.Next()
		}
		s := source.Stats
		if !errors.Is(err, io.EOF) || s.Cut != c.cut || s.Records < 100 || s.Records > c.most || s.Skipped > 1 {
			t.Errorf("%s: %v, %+v", c.name, err, s)
		}
	}
}
