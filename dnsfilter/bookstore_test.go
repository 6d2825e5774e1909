package dnsfilter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"github.com/rs/zerolog"

	"sallyport/allowlists"
)

// A keeper is a book that is kept in a file, and what the log said of it.
type keeper struct {
	*bookStore
	log      *bytes.Buffer
	failures int
	mu       sync.Mutex
	told     []string // states
}

// keepAt opens the book that path keeps, in which pool "gone" is no longer.
func keepAt(path string, limit int) *keeper {
	k := &keeper{log: new(bytes.Buffer)}
	stands := func(pool string, h allowlists.Host) bool { return pool != "gone" && h.String() != "refused.example" }
	k.bookStore = openBookStore(path, newBook(limit), 2*time.Hour, stands, k.take, zerolog.New(k.log))
	return k
}

// take counts writes that failed, and keeps the states that are news.
func (k *keeper) take(state, _ string, news bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if state == BookFailing {
		k.failures++
	}
	if news {
		k.told = append(k.told, state)
	}
}

// states are those that were told.
func (k *keeper) states() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return strings.Join(k.told, " ")
}

// holds lists what a book says of an address to a client of pool build.
func (k *keeper) holds(client, addr netip.Addr) string {
	hosts, ttl := k.book.lookup(account{"build", client}, addr, time.Now(), anyHost)
	return fmt.Sprint(hosts, ttl.Round(time.Second))
}

// until is a time in seconds since 1970, from now.
func until(d time.Duration) int64 { return time.Now().Add(d).Unix() }

func TestAKeptBookIsReadStrictly(t *testing.T) {
	line := func(d time.Duration, names ...string) string {
		var list []string
		for _, name := range names {
			list = append(list, fmt.Sprintf(`{"name":%q,"until":%d}`, name, until(d)))
		}
		return `{"pool":"build","client":"10.0.0.1","addr":"93.0.0.1","names":[` + strings.Join(list, ",") + "]}\n"
	}
	good := line(time.Hour, "a.example")
	head := bookHeader + "\n"
	tests := []struct {
		rule, text string
		names      string
		kept       bool // no part of it was lost
	}{
		{"a line is what was answered", head + good, "[a.example]", true},
		{"the newest name comes first", head + line(time.Hour, "b.example", "a.example"), "[b.example a.example]", true},
		{"a later line is newer", head + good + line(time.Hour, "b.example"), "[b.example a.example]", true},
		{"an empty book is one", head, "[]", true},
		{"a last line that was cut off is no fault", head + good + `{"pool":"build","cli`, "[a.example]", true},
		{"what has expired is over", head + line(-time.Second, "a.example"), "[]", true},
		{"a name stands no longer than an answer may", head + line(1000*time.Hour, "a.example"), "[a.example]", true},
		{"a pool that is gone has no answers", head + strings.Replace(good, "build", "gone", 1), "[]", true},
		{"a name that is refused now has no answers", head + line(time.Hour, "refused.example"), "[]", true},
		{"a name is canonical", head + line(time.Hour, "A.example", "0x7f.1", "b..example", "ok.example"), "[ok.example]", true},
		{"further fields are left alone", head + strings.Replace(good, "{", `{"new":1,`, 1), "[a.example]", true},
		{"an empty file is no book", "", "[]", false},
		{"a file without its first line is no book", good, "[]", false},
		{"a book of another form is not guessed at", "{\"sallyport_book\":2}\n" + good, "[]", false},
		{"a broken line costs itself", head + "nonsense\n" + good, "[a.example]", false},
		{"zeros cost themselves", head + strings.Repeat("\x00", 9000) + "\n" + good, "[a.example]", false},
		{"a line that is too long costs itself", head + `{"pool":"` + strings.Repeat("x", 3*maxBookLine) + "\"}\n" + good, "[a.example]", false},
		{"too many names are none", head + line(time.Hour, slices.Repeat([]string{"b.example"}, 17)...) + good, "[a.example]", false},
		{"an address is plain", head + strings.Replace(good, "93.0.0.1", "::ffff:93.0.0.1", 1), "[]", false},
		{"a client is an address", head + strings.Replace(good, "10.0.0.1", "", 1), "[]", false},
		{"a line names a pool", head + strings.Replace(good, "build", "", 1), "[]", false},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "book.jsonl")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			k := keepAt(path, 100)
			defer k.close()
			hosts, ttl := k.book.lookup(account{"build", netip.MustParseAddr("10.0.0.1")}, netip.MustParseAddr("93.0.0.1"), time.Now(), anyHost)
			if fmt.Sprint(hosts) != tt.names || ttl > 2*time.Hour || k.kept != tt.kept {
				t.Errorf("%v for %s, kept %v", hosts, ttl, k.kept)
			}
			checkBook(t, k.book)
			aside, err := os.ReadFile(path + ".bad")
			if tt.kept != os.IsNotExist(err) || !tt.kept && (string(aside) != tt.text || !strings.Contains(k.log.String(), "set aside")) {
				t.Errorf("set aside: %v, %v; the log says %s", len(aside), err, k.log)
			}
			again := keepAt(path, 100) // the file was mended
			defer again.close()
			held := again.holds(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("93.0.0.1"))
			before, later := fmt.Sprint(hosts, ttl.Round(time.Second)), fmt.Sprint(hosts, (ttl-time.Second).Round(time.Second)) // a second may have ended
			if !again.kept || held != before && held != later {
				t.Errorf("afterwards it is kept: %v, %s and not %s, %s", again.kept, held, before, again.log)
			}
		})
	}
}

func TestAKeptBookGoesOnWhereItEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "made", "book.jsonl")
		k := keepAt(path, 1000)
		if k.kept || k.log.Len() > 0 {
			t.Errorf("a first start reads a book: %s", k.log)
		}
		k.start()
		now := time.Now()
		by := account{"build", addrN(7)}
		k.book.add(by, hostN(t, 1), []netip.Addr{addrN(1), addrN(2)}, now, now.Add(time.Hour))
		k.book.add(by, hostN(t, 2), []netip.Addr{addrN(1)}, now, now.Add(time.Hour))
		k.book.add(account{"gone", addrN(7)}, hostN(t, 1), []netip.Addr{addrN(1)}, now, now.Add(time.Hour))
		time.Sleep(100 * time.Millisecond) // the clock of the bubble: this is the promise
		synctest.Wait()
		// Another reads what a process that is killed now would leave.
		for range 2 {
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			copied := filepath.Join(t.TempDir(), "book.jsonl")
			if err := os.WriteFile(copied, raw, 0o600); err != nil {
				t.Fatal(err)
			}
			second := keepAt(copied, 1000)
			if got := second.holds(addrN(7), addrN(1)); got != k.holds(addrN(7), addrN(1)) || !strings.HasPrefix(got, "[n2.example n1.example]") {
				t.Errorf("the second knows %s", got)
			}
			if got := second.holds(addrN(7), addrN(2)); !strings.HasPrefix(got, "[n1.example]") {
				t.Errorf("the second knows %s", got)
			}
			if len(second.book.pools) != 1 {
				t.Error("a pool that is gone came back")
			}
			second.close()
			k.close() // writes the same
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
	})
}

// A name that is asked again and again is written when it changes, and the file
// does not outgrow what is live.
func TestAKeptBookStaysSmall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "book.jsonl")
		k := keepAt(path, 1000)
		k.start()
		defer k.close()
		size := func() int64 {
			synctest.Wait()
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			return info.Size()
		}
		by, end := account{"build", addrN(7)}, time.Now().Add(time.Hour)
		k.book.add(by, hostN(t, 1), []netip.Addr{addrN(1)}, time.Now(), end)
		time.Sleep(100 * time.Millisecond)
		once := size()
		for range 1000 {
			k.book.add(by, hostN(t, 1), []netip.Addr{addrN(1)}, time.Now(), end)
		}
		time.Sleep(100 * time.Millisecond)
		if got := size(); got != once {
			t.Errorf("the same answer again made %d bytes of %d", got, once)
		}
		var largest int64
		for range 1000 {
			for i := range 50 {
				k.book.add(by, hostN(t, i), []netip.Addr{addrN(i)}, time.Now(), time.Now().Add(time.Hour))
			}
			time.Sleep(time.Second)
			largest = max(largest, size())
		}
		// Twice 50 lines, 1024 more, and what comes within ten seconds.
		if limit := 120 * int64(100+1024+11*50); largest > limit {
			t.Errorf("the file grew to %d bytes, beyond %d", largest, limit)
		}
		time.Sleep(3 * time.Hour) // all has expired
		for i := range 2000 {
			k.book.add(by, hostN(t, i), []netip.Addr{addrN(i)}, time.Now(), time.Now().Add(time.Hour))
		}
		time.Sleep(rewriteEvery)
		k.close()
		checkBook(t, k.book)
		k = keepAt(path, 1000)
		if names, _ := k.book.sizes(); names != 1000 || !k.kept {
			t.Errorf("%d names are kept", names)
		}
	})
}

func TestABookThatCannotBeKeptIsTriedAgain(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Log("as root: a file in the place of the directory stands for one that is not ours")
	}
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "state")
		if err := os.WriteFile(dir, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "book.jsonl")
		k := keepAt(path, 1000)
		if k.failures != 1 || k.kept || !strings.Contains(k.log.String(), "cannot be kept") {
			t.Errorf("%d failures; the log says %s", k.failures, k.log)
		}
		k.start()
		k.book.add(account{"build", addrN(7)}, hostN(t, 1), []netip.Addr{addrN(1)}, time.Now(), time.Now().Add(time.Hour))
		time.Sleep(time.Minute)
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rewriteEvery + time.Second)
		synctest.Wait()
		if lines := strings.Count(k.log.String(), "cannot be kept"); lines != 1 || k.failures < 3 || k.failures > 8 {
			t.Errorf("%d failures, %d times in the log", k.failures, lines)
		}
		if states := k.states(); states != "damaged failing recovered" {
			t.Errorf("told: %s", states)
		}
		k.close()
		again := keepAt(path, 1000)
		if got := again.holds(addrN(7), addrN(1)); !strings.HasPrefix(got, "[n1.example]") {
			t.Errorf("kept %s; the log says %s", got, k.log)
		}
	})
}

// TestABookThatWasNotLeftAloneIsWrittenAnew takes the file, or what is in it,
// away from a store that runs, with and without answers that come after.
func TestABookThatWasNotLeftAloneIsWrittenAnew(t *testing.T) {
	for what, c := range map[string]struct {
		harm func(path string) error
		told string
	}{
		"deleted":                    {os.Remove, "missing recovered"},
		"deleted with its directory": {func(path string) error { return os.RemoveAll(filepath.Dir(path)) }, "missing recovered"},
		"replaced":                   {func(path string) error { return errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600)) }, "damaged recovered"},
		"cut":                        {func(path string) error { return os.Truncate(path, 10) }, "damaged recovered"},
	} {
		for _, more := range []bool{false, true} {
			t.Run(fmt.Sprint(what, more), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					path := filepath.Join(t.TempDir(), "state", "book.jsonl")
					k := keepAt(path, 1000)
					k.start()
					add := func(i int) {
						k.book.add(account{"build", addrN(7)}, hostN(t, i), []netip.Addr{addrN(i)}, time.Now(), time.Now().Add(time.Hour))
					}
					add(1)
					time.Sleep(time.Minute)
					if err := c.harm(path); err != nil {
						t.Fatal(err)
					}
					if more {
						add(2)
					}
					time.Sleep(rewriteEvery + time.Second)
					synctest.Wait()
					again := keepAt(path, 1000) // as after a kill -9 now
					if got := again.holds(addrN(7), addrN(1)); !strings.HasPrefix(got, "[n1.example]") {
						t.Errorf("kept %s", got)
					}
					if got := again.holds(addrN(7), addrN(2)); more && !strings.HasPrefix(got, "[n2.example]") {
						t.Errorf("of what came after, kept %s", got)
					}
					if states := k.states(); states != c.told {
						t.Errorf("told: %s", states)
					}
					k.close()
				})
			})
		}
	}
}

func TestABookIsReadFromNothingButAFile(t *testing.T) {
	other := filepath.Join(t.TempDir(), "other.jsonl")
	if err := os.WriteFile(other, []byte(bookHeader+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for kind, put := range map[string]func(path string) error{
		"a directory":     func(path string) error { return os.Mkdir(path, 0o700) },
		"a pipe":          func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"a symbolic link": func(path string) error { return os.Symlink(other, path) },
	} {
		path := filepath.Join(t.TempDir(), "book.jsonl")
		if err := put(path); err != nil {
			t.Fatal(err)
		}
		k := keepAt(path, 100)
		k.close()
		info, err := os.Lstat(path)
		if k.kept || err != nil || !info.Mode().IsRegular() {
			t.Errorf("%s: kept %v; %v; the log says %s", kind, k.kept, err, k.log)
		}
	}
}

// While the file cannot be written, what it lacks is bounded by the book.
func TestWhatIsYetToBeKeptIsBounded(t *testing.T) {
	b := newBook(100)
	b.keep()
	for i := range 5000 {
		b.add(account{"build", addrN(i % 3)}, hostN(t, i), []netip.Addr{addrN(i)}, time.Now(), time.Now().Add(time.Hour))
	}
	checkBook(t, b)
	if names, _ := b.sizes(); b.unkept.Len() != names {
		t.Errorf("%d cells wait for the file, of %d names", b.unkept.Len(), names)
	}
}

func TestWhatIsYetToBeKeptIsWrittenAtTheEnd(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	k := keepAt(filepath.Join(dir, "book.jsonl"), 100)
	k.start()
	k.book.add(account{"build", addrN(7)}, hostN(t, 1), []netip.Addr{addrN(1)}, time.Now(), time.Now().Add(time.Hour))
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	k.close()
	again := keepAt(filepath.Join(dir, "book.jsonl"), 100)
	defer again.close()
	if got := again.holds(addrN(7), addrN(1)); !strings.HasPrefix(got, "[n1.example]") {
		t.Errorf("kept %s", got)
	}
}

// FuzzReadBook reads any file: without a panic, into a book within its bounds,
// and what it then holds is written and read again the same.
func FuzzReadBook(f *testing.F) {
	line := fmt.Sprintf(`{"pool":"build","client":"10.0.0.1","addr":"93.0.0.1","names":[{"name":"a.example","until":%d}]}`, until(24*time.Hour))
	f.Add([]byte(bookHeader + "\n" + line + "\n"))
	f.Add([]byte(bookHeader + "\n" + strings.Repeat(strings.Replace(line, "a.e", "b.e", 1)+"\n", 40) + line))
	f.Add([]byte(bookHeader + "\n{\"pool\":\"build\",\"client\":\"fe80::1%x\",\"addr\":\"::\",\"names\":null}\n\n[]\n"))
	f.Add([]byte(bookHeader))
	f.Fuzz(func(t *testing.T, raw []byte) {
		now := time.Now()
		stands := func(string, allowlists.Host) bool { return true }
		one, two := newBook(16), newBook(16)
		if _, err := readBook(bytes.NewReader(raw), func(l bookLine) { one.restore(l, now, now.Add(time.Hour), stands) }); err != nil {
			return
		}
		checkBook(t, one)
		one.keep()
		text := []byte(bookHeader + "\n")
		_ = one.takeAll(now, func(lines []bookLine) error { text, _ = encodeBook(text, lines); return nil })
		bad, err := readBook(bytes.NewReader(text), func(l bookLine) { two.restore(l, now, now.Add(time.Hour), stands) })
		two.keep()
		again := []byte(bookHeader + "\n")
		_ = two.takeAll(now, func(lines []bookLine) error { again, _ = encodeBook(again, lines); return nil })
		if bad > 0 || err != nil || !bytes.Equal(text, again) {
			t.Errorf("%d bad lines, %v:\n%s\n%s", bad, err, text, again)
		}
	})
}

// BenchmarkHandleKept is BenchmarkHandle's cached question with the book in a
// file: "same" asks for what the file has, "new" each time for another name. Last:
// 5.4 µs with nothing kept, 5.9 µs same, 8.5 µs new.
func BenchmarkHandleKept(b *testing.B) {
	for _, kept := range []string{"nothing", "same", "new"} {
		b.Run(kept, func(b *testing.B) {
			s, _ := offline(b, func(name string, qtype uint16) (*dns.Msg, error) { return answered(name, qtype, 3600), nil })
			s.cfg.Observe = func(QueryRecord) {}
			if kept != "nothing" {
				s.cfg.BookFile = filepath.Join(b.TempDir(), "book.jsonl")
				if err := s.Listen(); err != nil {
					b.Fatal(err)
				}
			}
			queries := [][]byte{asks(b, "allowed.example.")}
			if kept == "new" {
				queries = nil
				for i := range 4096 {
					queries = append(queries, asks(b, fmt.Sprintf("n%d.wild.example.", i)))
				}
			}
			for _, query := range queries { // into the cache
				s.handle(context.Background(), query, poolOrigin)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if s.handle(context.Background(), queries[i%len(queries)], poolOrigin) == nil {
					b.Fatal("silence")
				}
			}
		})
	}
}

// BenchmarkRewrite writes the file of a full book, and reads it. Last: 0.5 s, in
// the background, of which answers may wait 11 ms once; 2.6 s, before the start.
func BenchmarkRewrite(b *testing.B) {
	s, _ := offline(b, nil)
	fill(b, s)
	path := filepath.Join(b.TempDir(), "book.jsonl")
	store := openBookStore(path, s.book, time.Hour, nil, func(string, string, bool) {}, zerolog.Nop())
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			store.rewrite()
		}
	})
	b.Run("lock", func(b *testing.B) { // the longest that an answer may wait for it
		for b.Loop() {
			s.book.cells("build")
		}
	})
	store.close()
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			into := newBook(defaultBookEntries)
			openBookStore(path, into, time.Hour, func(string, allowlists.Host) bool { return true }, func(string, string, bool) {}, zerolog.Nop()).close()
		}
	})
}
