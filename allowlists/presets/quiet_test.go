package presets_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/publicsuffix"

	"sallyport/allowlists/presets"
)

// A quietList is one file of the built-in quiet list.
type quietList struct {
	Name, Description string
	Hosts             []entry
	Quiet             []quietEntry
}

// A quietEntry is one line of it.
type quietEntry struct{ Host, Source, Verified string }

// readQuiet decodes the lines of one operating system.
func readQuiet(t *testing.T, system string) quietList {
	t.Helper()
	text, ok := presets.Quiet(system)
	if !ok {
		t.Fatalf("no quiet list of %s", system)
	}
	var l quietList
	decode(t, system, text, &l)
	return l
}

// exactName is a host name without any wildcard or port.
var exactName = regexp.MustCompile(`^([a-z0-9-]+\.)+[a-z]+$`)

// documentAddress is where a source can be read, with a path.
var documentAddress = regexp.MustCompile(`^https?://([a-z0-9-]+\.)+[a-z]+/[^ ]+(, |$)`)

// quietOwners are the domains below which quiet names may lie: each belongs to
// the maker of a system, or to the project that serves its machines.
var quietOwners = map[string]bool{
	"ubuntu.com": true, "canonical.com": true, "snapcraft.io": true, "debian.org": true, "ntp.org": true, "fwupd.org": true,
	"gnome.org": true, "archlinux.org": true, "opensuse.org": true, "microsoft.com": true, "windows.com": true,
	"msftconnecttest.com": true, "msftncsi.com": true, "windowsupdate.com": true, "apple.com": true, "android.com": true, "gstatic.com": true,
}

func TestQuietNamesAreExactAndNobodyElseCanHaveThem(t *testing.T) {
	seen := make(map[string]string)
	for _, system := range presets.QuietSystems() {
		l := readQuiet(t, system)
		if l.Name != system || !strings.HasSuffix(l.Description, ".") || len(l.Quiet) == 0 || len(l.Hosts) != 0 {
			t.Errorf("%s: name %q, description %q, %d lines, %d hosts", system, l.Name, l.Description, len(l.Quiet), len(l.Hosts))
		}
		for _, e := range l.Quiet {
			if !exactName.MatchString(e.Host) {
				t.Errorf("%s: %s is no exact name", system, e.Host)
			}
			if suffix, icann := publicsuffix.PublicSuffix(e.Host); !icann || suffix == e.Host {
				t.Errorf("%s: strangers can have names under %s", system, suffix)
			}
			if domain, err := publicsuffix.EffectiveTLDPlusOne(e.Host); err != nil || !quietOwners[domain] {
				t.Errorf("%s: %s belongs to nobody that makes a system", system, e.Host)
			}
			if other := seen[e.Host]; other != "" {
				t.Errorf("%s is in the lists of %s and %s", e.Host, other, system)
			}
			seen[e.Host] = system
			if !documentAddress.MatchString(e.Source) {
				t.Errorf("%s: the source of %s is %q; give the address of a public document that names it", system, e.Host, e.Source)
			}
			if _, err := time.Parse(time.DateOnly, e.Verified); err != nil {
				t.Errorf("%s: %s is verified %q; a name that nobody looked up is no excuse", system, e.Host, e.Verified)
			}
		}
	}
	each(t, func(t *testing.T, preset string, e entry) {
		if seen[e.pattern()] != "" {
			t.Errorf("%s allows %s, which a machine asks for by itself", preset, e.Host)
		}
	})
}

// quietSection is the part of docs/presets.md about the built-in quiet list.
func quietSection(t *testing.T) string {
	var b strings.Builder
	b.WriteString(quietPreface)
	for _, system := range presets.QuietSystems() {
		l := readQuiet(t, system)
		var hosts []string
		for _, e := range l.Quiet {
			hosts = append(hosts, "`"+e.Host+"`")
		}
		b.WriteString("| " + system + " | " + l.Description + " | " + strings.Join(hosts, ", ") + " |\n")
	}
	return b.String()
}

// quietPreface opens that part.
const quietPreface = `
## Built-in quiet list

What machines ask for by themselves, whatever job they run, is refused in every pool without a ` + "`denied-egress`" + ` alert; nothing of it is allowed. The event has
` + "`quiet: true`" + `, the metrics count it, and every other alert still speaks. ` + "`sallyport explain`" + ` says "quiet: built in (ubuntu:12)", which is the line of the file
` + "`allowlists/presets/quiet/ubuntu.yaml`" + ` with the address of its source. There are exact names only, each of a domain that belongs to who makes the system,
and each held against a public document.

A pool's own lists win: a name that the pool has under ` + "`allow`" + ` (for another port, too) or ` + "`deny`" + ` is not quiet for this list's sake. To hear of one, put it under ` + "`deny`" + `.

Left out on purpose: mirrors and registries, as a build that lacks one should be told so; certificate checks (CRL, OCSP), which programs of a job cause; sites that people
visit too, such as fedoraproject.org, where Fedora looks whether there is a network.

| system | what for | names |
|---|---|---|
`
