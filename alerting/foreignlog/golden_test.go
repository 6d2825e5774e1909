package foreignlog_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/alerting/foreignlog"
)

var update = flag.Bool("update", false, "write the golden files")

// options are those of the samples: their year and zone.
var options = foreignlog.Options{Zone: time.UTC, Latest: time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)}

// read gives the records of a file as lines of JSON, with what was counted.
func read(t *testing.T, name string) string {
	t.Helper()
	source, err := foreignlog.Probe(name, nil, options, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	for {
		r, err := source.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		r.Sum = 0
		if err := encoder.Encode(withoutZeroes(t, r)); err != nil {
			t.Fatal(err)
		}
	}
	stats := withoutZeroes(t, source.Stats)
	if err := encoder.Encode(map[string]any{"format": source.Format.Name, "stats": stats}); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// withoutZeroes is a value as a map that has only what says something.
func withoutZeroes(t *testing.T, value any) map[string]any {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	return pruned(m)
}

func pruned(m map[string]any) map[string]any {
	for key, value := range m {
		switch v := value.(type) {
		case map[string]any:
			m[key] = pruned(v)
		case nil:
			delete(m, key)
		case string:
			if v == "" {
				delete(m, key)
			}
		case float64:
			if v == 0 {
				delete(m, key)
			}
		case bool:
			if !v {
				delete(m, key)
			}
		}
	}
	return m
}

// TestSamples reads what squid, dnsmasq and unbound of Debian 12 wrote, and
// samples in the form that the documentation of the others gives.
func TestSamples(t *testing.T) {
	files, err := filepath.Glob("testdata/*.log")
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			got := read(t, name)
			golden := name + ".records"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(want, []byte(got)) {
				t.Errorf("the records are not those of %s:\n%s", golden, got)
			}
		})
	}
}
