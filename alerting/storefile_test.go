package alerting_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/alerting"
)

// recordsOf reads everything that a store has of some kinds.
func recordsOf(t *testing.T, store alerting.Store, kinds ...string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, kind := range kinds {
		if err := store.Load(kind, func(key string, value []byte) error { all[kind+" "+key] = string(value); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// filled opens a store in dir and commits n groups to it, one by one.
func filled(t *testing.T, dir string, n int) alerting.Store {
	t.Helper()
	store, err := alerting.OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	for i := range n {
		put(t, store, fmt.Sprintf("g%d", i))
	}
	return store
}

func put(t *testing.T, store alerting.Store, key string) {
	t.Helper()
	value := []byte(`{"summary":"` + strings.Repeat("x", 200) + `"}`)
	if err := store.Commit([]alerting.Change{{Kind: "group", Key: key, Value: value}, {Kind: "position", Value: []byte(`"` + key + `"`)}}); err != nil {
		t.Fatal(err)
	}
}

func reopened(t *testing.T, dir string) alerting.Store {
	t.Helper()
	store, err := alerting.OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

func asides(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "alerts.jsonl.corrupt-*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestADamagedStoreOpensWithWhatCanBeRead damages the file of a stopped daemon.
func TestADamagedStoreOpensWithWhatCanBeRead(t *testing.T) {
	t.Parallel()
	const groups = 100
	first := t.TempDir()
	filled(t, first, groups).Close()
	sound, err := os.ReadFile(filepath.Join(first, "alerts.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what   string
		damage func(data []byte) []byte
		least  int // groups that survive
	}{
		{"the last page is torn", func(b []byte) []byte { copy(b[len(b)/4096*4096:], make([]byte, 4096)); return b }, groups - 20},
		{"a page in the middle is zero", func(b []byte) []byte { copy(b[8192:], make([]byte, 4096)); return b }, groups - 20},
		{"a page is another one of it", func(b []byte) []byte { copy(b[8192:12288], b[16384:]); return b }, groups - 20},
		{"one bit has changed", func(b []byte) []byte { b[len(b)/2] ^= 4; return b }, groups - 1},
		{"a record of a commit is missing", func(b []byte) []byte { return withoutLine(b, 20) }, groups - 1},
		{"the header is garbage", func(b []byte) []byte { copy(b, "garbage garbage"); return b }, groups - 1},
		{"the first page is garbage", func(b []byte) []byte { copy(b, bytes.Repeat([]byte{0xff}, 4096)); return b }, groups - 20},
		{"it is empty", func([]byte) []byte { return nil }, 0},
		{"all of it is zero", func(b []byte) []byte { return make([]byte, len(b)) }, 0},
		{"it is one endless line", func(b []byte) []byte { return bytes.Repeat([]byte("x"), 17<<20) }, 0},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "alerts.jsonl")
			if err := os.WriteFile(path, c.damage(slices.Clone(sound)), 0o600); err != nil {
				t.Fatal(err)
			}
			store := reopened(t, dir)
			if got := len(recordsOf(t, store, "group")); got < c.least || got > groups {
				t.Errorf("%d of %d groups are there, want %d at least", got, groups, c.least)
			}
			if found := alerting.StoreFaults(store); !slices.Equal(found, []string{"damaged"}) || len(asides(t, dir)) != 1 {
				t.Errorf("found %v, set aside %v", found, asides(t, dir))
			}
			put(t, store, "new")
			want := recordsOf(t, store, "group", "position")
			store.Close()
			after := reopened(t, dir)
			if got := recordsOf(t, after, "group", "position"); !maps.Equal(got, want) || len(alerting.StoreFaults(after)) != 0 {
				t.Errorf("after the next start there are %d records of %d", len(got), len(want))
			}
		})
	}
}

// withoutLine is text without its n-th line from 0.
func withoutLine(text []byte, n int) []byte {
	lines := bytes.SplitAfter(text, []byte("\n"))
	return bytes.Join(slices.Delete(lines, n, n+1), nil)
}

// TestRandomDamageNeitherCrashesNorInvents overwrites, cuts and moves pages at
// random: what is read is always something that was written.
func TestRandomDamageNeitherCrashesNorInvents(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store := filled(t, dir, 60)
	want := recordsOf(t, store, "group")
	store.Close()
	path := filepath.Join(dir, "alerts.jsonl")
	sound, _ := os.ReadFile(path)
	random := rand.New(rand.NewPCG(4, 6))
	for range 100 {
		data := slices.Clone(sound)
		for range 1 + random.IntN(3) {
			at := random.IntN(len(data))
			end := min(len(data), at+1+random.IntN(4096))
			switch random.IntN(3) {
			case 0:
				for i := at; i < end; i++ {
					data[i] = byte(random.Uint32())
				}
			case 1:
				data = append(data[:at:at], data[end:]...)
			default:
				copy(data[at:end], data[random.IntN(len(data)):])
			}
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		store := reopened(t, dir)
		for key, value := range recordsOf(t, store, "group") {
			if want[key] != value {
				t.Fatalf("%s is %q", key, value)
			}
		}
		store.Close()
	}
	if n := len(asides(t, dir)); n > 3 {
		t.Errorf("%d damaged files are kept", n)
	}
}

// TestACommitThatACrashCutOffDoesNotCount cuts the file anywhere in its last
// commit: the store is as before it, and nothing is said to be damaged.
func TestACommitThatACrashCutOffDoesNotCount(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store := filled(t, dir, 3)
	path := filepath.Join(dir, "alerts.jsonl")
	before, _ := os.ReadFile(path)
	want := recordsOf(t, store, "group", "position")
	put(t, store, "last")
	store.Close()
	whole, _ := os.ReadFile(path)
	for cut := len(before); cut < len(whole); cut += 7 {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		store := reopened(t, dir)
		if got := recordsOf(t, store, "group", "position"); !maps.Equal(got, want) {
			t.Fatalf("cut at %d of %d: %v", cut, len(whole), slices.Collect(maps.Keys(got)))
		}
		if found := alerting.StoreFaults(store); len(found) > 0 {
			t.Fatalf("cut at %d of %d: %v", cut, len(whole), found)
		}
		store.Close()
	}
}

// TestAStoreWhoseFileIsTakenAwayWritesItAnew does to an open store what people
// and disks do.
func TestAStoreWhoseFileIsTakenAwayWritesItAnew(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what, state string
		harm        func(dir, path string) error
		aside       int
	}{
		{"the file is deleted", "missing", func(_, path string) error { return os.Remove(path) }, 0},
		{"the directory is deleted", "missing", func(dir, _ string) error { return os.RemoveAll(dir) }, 0},
		{"the directory is renamed", "missing", func(dir, _ string) error { return os.Rename(dir, dir+".old") }, 0},
		{"the file is replaced", "replaced", func(_, path string) error {
			if err := os.WriteFile(path+"x", []byte("other"), 0o600); err != nil {
				return err
			}
			return os.Rename(path+"x", path)
		}, 1},
		{"a directory is in its place", "replaced", func(_, path string) error {
			os.Remove(path)
			return os.Mkdir(path, 0o700)
		}, 1},
		{"the file is cut short", "damaged", func(_, path string) error { return os.Truncate(path, 100) }, 1},
		{"somebody else wrote to it", "damaged", func(_, path string) error {
			file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer file.Close()
			_, err = file.WriteString("garbage")
			return err
		}, 1},
		{"a page is overwritten", "damaged", func(_, path string) error {
			file, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer file.Close()
			_, err = file.WriteAt(make([]byte, 4096), 4096)
			return err
		}, 1},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "state")
			store := filled(t, dir, 40)
			want := recordsOf(t, store, "group", "position")
			if err := c.harm(dir, filepath.Join(dir, "alerts.jsonl")); err != nil {
				t.Fatal(err)
			}
			alerting.VerifyNow(store)
			if err := store.Commit(nil); err != nil {
				t.Fatal(err)
			}
			if found := alerting.StoreFaults(store); !slices.Equal(found, []string{c.state}) || len(asides(t, dir)) != c.aside {
				t.Errorf("found %v, set aside %v", found, asides(t, dir))
			}
			if _, err := alerting.OpenStore(dir); err == nil || !strings.Contains(err.Error(), "another process holds it") {
				t.Errorf("a second owner gets %v", err)
			}
			store.Close()
			if got := recordsOf(t, reopened(t, dir), "group", "position"); !maps.Equal(got, want) {
				t.Errorf("%d of %d records are there", len(got), len(want))
			}
		})
	}
}

// TestAStoreDoesNotGrowWithItsCommits changes one record over and over.
func TestAStoreDoesNotGrowWithItsCommits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store := filled(t, dir, 1)
	value := []byte(`"` + strings.Repeat("x", 100_000) + `"`)
	for range 200 {
		if err := store.Commit([]alerting.Change{{Kind: "group", Key: "a", Value: value}}); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "alerts.jsonl")); err != nil || info.Size() > 5<<20 {
		t.Errorf("%v, %d bytes", err, info.Size())
	}
	store.Close()
	if got := recordsOf(t, reopened(t, dir), "group"); got["group a"] != string(value) || len(got) != 2 {
		t.Errorf("%d records", len(got))
	}
}

func TestAStoreOfALaterVersionIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "alerts.jsonl")
	filled(t, dir, 1).Close()
	data, _ := os.ReadFile(path)
	later := bytes.Replace(data, data[:bytes.IndexByte(data, '\n')], alerting.StoreLine(`{"sallyport":"alerts","v":2}`), 1)
	if err := os.WriteFile(path, later, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := alerting.OpenStore(dir); err == nil || !strings.Contains(err.Error(), "later version") {
		t.Errorf("it says %v", err)
	}
	if now, _ := os.ReadFile(path); !bytes.Equal(now, later) {
		t.Error("the file was changed")
	}
}
