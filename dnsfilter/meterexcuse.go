package dnsfilter

import (
	_ "embed"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// meterDomainsOf finds the domains that a name counts for. own is the
// registrable one, the private suffixes of publicsuffix.org honoured: its owner
// gets the question. As anyone can own several of those, a name under a private
// suffix counts for shared too, the registrable domain that the suffix lies in.
// Both "": a name of a single label, or a public suffix.
func meterDomainsOf(name string) (own, shared string) {
	suffix, icann := publicsuffix.PublicSuffix(name)
	own = oneMore(name, suffix)
	if icann || !strings.Contains(suffix, ".") {
		return own, ""
	}
	for rest := suffix; ; {
		_, rest, _ = strings.Cut(rest, ".")
		above, icann := publicsuffix.PublicSuffix(rest)
		if icann || !strings.Contains(above, ".") {
			return own, oneMore(suffix, above)
		}
	}
}

// oneMore is suffix with the label of name before it; "" if there is none.
func oneMore(name, suffix string) string {
	rest := strings.TrimSuffix(name, suffix)
	if rest == name || len(rest) < 2 || rest[len(rest)-1] != '.' {
		return ""
	}
	return name[strings.LastIndexByte(rest[:len(rest)-1], '.')+1:]
}

// prefixOf is what stands before a domain in a name, with its final dot; all of
// the name if it is not under that domain.
func prefixOf(name, domain string) string {
	if prefix, below := strings.CutSuffix(name, domain); below {
		return prefix
	}
	return name
}

// meterServices are the zones that carry data in names by design: block lists
// asked by reversed address or hash, and look-ups of antivirus and network
// registers. Nobody but their operators gets the questions, so that no job can
// have its data sent to itself there.
//
//go:embed meterservices.txt
var meterServices string

// servicesByZone are the zones of meterServices.
var servicesByZone = func() map[string]bool {
	zones := make(map[string]bool)
	for line := range strings.Lines(meterServices) {
		if zone, _, _ := strings.Cut(strings.TrimSpace(line), " "); zone != "" && zone[0] != '#' {
			zones[zone] = true
		}
	}
	return zones
}()

// carriesByDesign reports whether a name lies under a zone of meterServices.
func carriesByDesign(name string) bool {
	for {
		_, rest, more := strings.Cut(name, ".")
		if !more {
			return false
		}
		if servicesByZone[rest] {
			return true
		}
		name = rest
	}
}

// The bounds of a name that looks as people name hosts.
const (
	humanLabels = 3
	humanLabel  = 16 // bytes
	humanDigits = 3
)

// weightOf is what a new name adds to the number of names: nameUnit, or a
// quarter of it if it is asked for its addresses and has a human shape. A job
// can give its names that shape, and gets four times the number for it; the
// bytes are never less for it.
func weightOf(q *Carried, domain string) uint32 {
	if everyHostHas(q.Type) && !q.carrier() && humanShape(prefixOf(q.Name, domain)) {
		return nameUnit / 4
	}
	return nameUnit
}

// humanShape reports whether labels, with their final dot, look like names that
// people give to hosts: few, short, mostly letters, and those such as can be said.
func humanShape(prefix string) bool {
	labels, digits := 0, 0
	for label := range strings.SplitSeq(strings.TrimSuffix(prefix, "."), ".") {
		if labels++; labels > humanLabels || len(label) > humanLabel {
			return false
		}
		for part := range strings.FieldsFuncSeq(label, func(c rune) bool { return c == '-' || '0' <= c && c <= '9' }) {
			if !sayable(part) {
				return false
			}
		}
		for _, c := range []byte(label) {
			if '0' <= c && c <= '9' {
				digits++
			}
		}
	}
	return digits <= humanDigits
}

// sayable reports whether a run of characters is an abbreviation of up to four
// letters, or has a vowel among every five.
func sayable(word string) bool {
	run, vowels := 0, 0
	for _, c := range []byte(word) {
		if c < 'a' || c > 'z' {
			return false
		}
		if run++; strings.IndexByte("aeiouy", c) >= 0 {
			run = 0
			vowels++
		}
		if run > 4 {
			return false
		}
	}
	return len(word) <= 4 || 5*vowels >= len(word)
}
