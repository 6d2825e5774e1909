package allowlists_test

import (
	"strings"
	"testing"

	"sallyport/allowlists"
)

func TestParseHostMakesOneSpelling(t *testing.T) {
	for text, want := range map[string]string{
		"github.com":                      "github.com",
		"GitHub.COM":                      "github.com",
		"github.com.":                     "github.com",
		"_http._tcp.deb.example":          "_http._tcp.deb.example",
		"bücher.example":                  "xn--bcher-kva.example",
		"BÜCHER.example":                  "xn--bcher-kva.example",
		"xn--bcher-kva.example":           "xn--bcher-kva.example",
		"XN--BCHER-KVA.EXAMPLE":           "xn--bcher-kva.example",
		"ｇithub.com":                      "github.com", // full-width g
		"github。com":                      "github.com", // ideographic full stop
		"faß.example":                     "xn--fa-hia.example",
		"1.2.3.4.example":                 "1.2.3.4.example",
		"r3---sn-x.example":               "r3---sn-x.example",
		"localhost":                       "localhost",
		"3com":                            "3com",
		strings.Repeat("a", 63) + ".test": strings.Repeat("a", 63) + ".test",
	} {
		host, err := allowlists.ParseHost(text)
		if err != nil || host.String() != want {
			t.Errorf("ParseHost(%q) = %q, %v; want %q", text, host, err, want)
		}
	}
}

// dirtyNames cannot be made canonical without guessing.
var dirtyNames = []string{
	"", ".", "..", "github.com..", ".github.com", "git..hub.com",
	"github.com\x00.evil.example", "git hub.com", "github.com ", "\tgithub.com", "github.com\r\n",
	"[github.com]", "github.com]", "git%68ub.com", "github.com%00", "user@github.com", "github.com/", "github.com\\", "github.com:443", "*.github.com",
	"127.0.0.1", "127.0.0.1.", "127.1", "0x7f.1", "0x7f000001", "017700000001", "2130706433", "0177.0.0.1", "1.2.3.0x", "x.08", "foo.0x7F", "1",
	"①②⑦.⓪.⓪.①", "１２７.0.0.1", "127。0。0。1", "x.１", // digits only after IDNA mapping
	"xn--a", "a\xff.example", "\u202egithub.com", "a\u2028b.example", "℀.example", // maps to a/c
	strings.Repeat("a", 64) + ".test", strings.Repeat("a.", 127) + "aa", strings.Repeat("a", 2000),
}

func TestParseHostRefusesWhatItWouldHaveToGuess(t *testing.T) {
	for _, text := range dirtyNames {
		if host, err := allowlists.ParseHost(text); err == nil {
			t.Errorf("ParseHost(%q) = %q, want an error", text, host)
		}
	}
}

func TestHostFromDNSUndoesEscapes(t *testing.T) {
	for text, want := range map[string]string{
		"GitHub.com.":            "github.com",
		`\103ithub.com.`:         "github.com", // an escaped letter is that letter
		`b\195\188cher.example.`: "xn--bcher-kva.example",
		`git\.hub.com.`:          "", // a dot inside a label
		`git\046hub.com.`:        "",
		`github.com\000.evil.`:   "",
		`a\ b.example.`:          "",
		`a\300.example.`:         "",
		`a\`:                     "",
		`a\1`:                    "",
		".":                      "",
		"127.0.0.1.":             "",
	} {
		host, err := allowlists.HostFromDNS(text)
		if host.String() != want || (err == nil) != (want != "") {
			t.Errorf("HostFromDNS(%q) = %q, %v; want %q", text, host, err, want)
		}
	}
}

func TestParseTarget(t *testing.T) {
	for text, want := range map[string]string{
		"github.com:443":        "github.com:443",
		"GitHub.com.:8080":      "github.com:8080",
		"198.51.100.7:443":      "198.51.100.7:443",
		"[2001:db8::1]:443":     "[2001:db8::1]:443",
		"[::FFFF:127.0.0.1]:1":  "[::ffff:127.0.0.1]:1",
		"github.com":            "bad-request",
		"github.com:":           "bad-request",
		"github.com:0":          "bad-request",
		"github.com:0443":       "bad-request",
		"github.com:+443":       "bad-request",
		"github.com:65536":      "bad-request",
		"github.com:4294967739": "bad-request", // 2^32+443
		"github.com: 443":       "bad-request",
		":443":                  "bad-host",
		"[github.com]:443":      "bad-host",
		"[127.0.0.1]:443":       "bad-host",
		"2001:db8::1:443":       "bad-host",
		"[fe80::1%eth0]:443":    "bad-host",
		"[::1":                  "bad-host",
		"[::1]443":              "bad-host",
		"x[::1]:443":            "bad-host",
		"0x7f.1:443":            "bad-host",
		"127.1:443":             "bad-host",
		"127.0.0.1.:443":        "bad-host",
		"0177.0.0.1:443":        "bad-host",
		"github.com\x00:443":    "bad-host",
	} {
		target, err := allowlists.ParseTarget(text, 0)
		got := target.String()
		if denied, ok := err.(*allowlists.DeniedError); ok {
			got = denied.Decision.Reason.String()
		}
		if got != want {
			t.Errorf("ParseTarget(%q) = %s, %v; want %s", text, got, err, want)
		}
	}
	if target, err := allowlists.ParseTarget("github.com", 80); err != nil || target.Port != 80 {
		t.Errorf("the default port: %v, %v", target, err)
	}
}

// FuzzCanonHost holds ParseHost against a second, slower reading of the rules
// for ASCII, and against itself: a canonical name is its own canonical form.
func FuzzCanonHost(f *testing.F) {
	for _, text := range dirtyNames {
		f.Add(text)
	}
	f.Add("GitHub.com.")
	f.Add("bücher.example")
	f.Fuzz(func(t *testing.T, text string) {
		host, err := allowlists.ParseHost(text)
		if err == nil {
			again, err := allowlists.ParseHost(host.String())
			if err != nil || again != host {
				t.Fatalf("%q -> %q -> %q, %v", text, host, again, err)
			}
		}
		want, known := slowHost(text)
		if known && want != host.String() {
			t.Fatalf("ParseHost(%q) = %q, %v; the slow reading is %q", text, host, err, want)
		}
	})
}

// slowHost is the canonical form of an ASCII name, "" if it has none; known is
// false for what needs IDNA.
func slowHost(text string) (name string, known bool) {
	name = strings.TrimSuffix(strings.ToLower(text), ".")
	labels := strings.Split(name, ".")
	for _, c := range []byte(text) {
		if c > 0x7f {
			return "", false
		}
	}
	if strings.Contains(name, "xn--") {
		return "", false
	}
	for _, label := range labels {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return "", true
		}
	}
	last := labels[len(labels)-1]
	hex, isHex := strings.CutPrefix(last, "0x")
	if len(name) > 253 || strings.Trim(last, "0123456789") == "" || isHex && strings.Trim(hex, "0123456789abcdef") == "" {
		return "", true
	}
	return name, true
}
