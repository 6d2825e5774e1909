package allowlists_test

import (
	"fmt"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// Files of 100,000 rules, linted too (amd64, Go 1.26, two cores). "floor" is what
// yaml.v3 alone takes for the file of names, of which the loader spares it all
// but the ends of each run. Time, and allocated in all:
//
//	floor   63 ms   29 MB
//	names   57 ms   55 MB
//	mixed  400 ms  157 MB
//	pools  115 ms  156 MB   1,000 pools with 100 names and two presets each
func BenchmarkLoad(b *testing.B) {
	b.Run("floor", func(b *testing.B) {
		text := manyNames()
		b.ReportAllocs()
		for b.Loop() {
			var document yaml.Node
			if err := yaml.NewDecoder(strings.NewReader(text)).Decode(&document); err != nil {
				b.Fatal(err)
			}
		}
	})
	for name, text := range map[string]string{"names": manyNames(), "mixed": mixedRules(), "pools": manyPools()} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if f, report := load(text); f == nil {
					b.Fatal(report.Err())
				}
			}
		})
	}
}

// manyNames is a file of one pool with 100,000 names.
func manyNames() string {
	var text strings.Builder
	text.WriteString("pools:\n  build:\n    sources: [127.0.0.1]\n    allow:\n")
	for i := range 100_000 {
		fmt.Fprintf(&text, "      - name%d.allowed.example\n", i)
	}
	return text.String()
}

// manyPools is a file of 1,000 pools with 100 names each, and presets.
func manyPools() string {
	var text strings.Builder
	text.WriteString("pools:\n")
	for p := range 1000 {
		fmt.Fprintf(&text, "  build%d:\n    sources: [10.%d.%d.0/24]\n    presets: [github-actions, npm]\n    allow:\n", p, p/250, p%250)
		for i := range 100 {
			fmt.Fprintf(&text, "      - name%d.allowed.example\n", i)
		}
	}
	return text.String()
}

// mixedRules is a file of 100,000 rules of all kinds.
func mixedRules() string {
	var text strings.Builder
	text.WriteString("pools:\n  build:\n    sources: [127.0.0.1]\n    allow:\n")
	for i := range 100_000 {
		switch i % 4 {
		case 0:
			fmt.Fprintf(&text, "      - host%d.example.com\n", i)
		case 1:
			fmt.Fprintf(&text, "      - \"*.zone%d.example.com\"\n", i)
		case 2:
			fmt.Fprintf(&text, "      - name%d-*.example.com:80,443\n", i)
		default:
			fmt.Fprintf(&text, "      - {host: git%d.example.com, ports: [22], reason: \"a mirror\"}\n", i)
		}
	}
	return text.String()
}
