package allowlists

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// patternKind orders patterns from the most specific to the least.
type patternKind uint8

const (
	patternNone    patternKind = iota
	patternExact               // registry.corp.example
	patternPartial             // glb-*.github.com
	patternBelow               // *.example.com: one or more labels, never the apex
	patternAny                 // *: every name; deny and quiet only
)

// A Pattern says which host names a rule covers. The zero Pattern covers none.
type Pattern struct {
	text string // in canonical form
	kind patternKind
	star uint8 // where the * of a partial label stands in text
	dot  uint8 // where its first dot does
}

// ParsePattern reads a host pattern: an exact name, "*.name" for one or more
// labels below name, or a name with one * inside its first label, which stands
// for one or more characters and no dot. "*" alone is every name. The error is
// a finished sentence with its mend.
func ParsePattern(text string) (Pattern, error) {
	if text == "*" {
		return Pattern{text: "*", kind: patternAny}, nil
	}
	label, rest, dotted := strings.Cut(text, ".")
	stars := strings.Count(text, "*")
	switch {
	case stars == 0:
		host, err := ParseHost(text)
		if err != nil {
			return Pattern{}, fmt.Errorf("%q is no host name (%w); write a name such as registry.example.com", text, err)
		}
		return Pattern{text: host.name, kind: patternExact}, nil
	case stars > 1 || !strings.Contains(label, "*"):
		return Pattern{}, fmt.Errorf("%q has a * where none may stand; write it once, in the first label", text)
	case !dotted:
		return Pattern{}, fmt.Errorf("%q would match names of one label; name a domain, such as \"*.example.com\"", text)
	}
	base, err := ParseHost(rest)
	if err != nil {
		return Pattern{}, fmt.Errorf("%q is no host pattern (%w); write \"*.example.com\"", text, err)
	}
	if label == "*" {
		return Pattern{text: "*." + base.name, kind: patternBelow}, nil
	}
	before, after, _ := strings.Cut(label, "*")
	if _, err := ParseHost(before + "x" + after + "." + rest); err != nil || !isASCII(label) {
		if err == nil {
			err = errors.New("a partial label takes ASCII letters only")
		}
		return Pattern{}, fmt.Errorf("%q is no host pattern (%w); write \"name-*.example.com\"", text, err)
	}
	return Pattern{
		text: strings.ToLower(label) + "." + base.name, kind: patternPartial,
		star: uint8(len(before)), dot: uint8(len(label)), // a label has at most 64 bytes here
	}, nil
}

func isASCII(text string) bool {
	for i := 0; i < len(text); i++ {
		if text[i] >= 0x80 {
			return false
		}
	}
	return true
}

// String gives the pattern in canonical form.
func (p Pattern) String() string { return p.text }

// IsZero reports whether the pattern covers nothing.
func (p Pattern) IsZero() bool { return p.kind == patternNone }

// Exact reports whether the pattern is one name.
func (p Pattern) Exact() bool { return p.kind == patternExact }

// Base is the exact name, or the name that stands right of the wildcard's label.
func (p Pattern) Base() string {
	switch p.kind {
	case patternExact:
		return p.text
	case patternPartial:
		return p.text[p.dot+1:]
	case patternBelow:
		return p.text[len("*."):]
	default:
		return ""
	}
}

// halves are what stands before and after the * of a partial label.
func (p Pattern) halves() (before, after string) {
	if p.kind != patternPartial {
		return "", ""
	}
	return p.text[:p.star], p.text[p.star+1 : p.dot]
}

// literals counts the characters of a partial label that are not its *.
func (p Pattern) literals() int {
	if p.kind != patternPartial {
		return 0
	}
	return int(p.dot) - 1
}

// Matches reports whether the pattern covers the host.
func (p Pattern) Matches(h Host) bool {
	switch p.kind {
	case patternExact:
		return h.name == p.text
	case patternPartial:
		label, rest, _ := strings.Cut(h.name, ".")
		return rest == p.Base() && p.matchesLabel(label)
	case patternBelow:
		return len(h.name) > len(p.text)-1 && strings.HasSuffix(h.name, p.text[len("*"):])
	case patternAny:
		return h.name != ""
	default:
		return false
	}
}

// matchesLabel holds a first label against a partial one.
func (p Pattern) matchesLabel(label string) bool {
	before, after := p.halves()
	return len(label) > len(before)+len(after) && strings.HasPrefix(label, before) && strings.HasSuffix(label, after)
}

// Covers reports whether every host that q matches is matched by p too.
func (p Pattern) Covers(q Pattern) bool {
	switch {
	case q.kind == patternNone:
		return true
	case p.kind == patternAny:
		return true
	case p.kind == patternBelow && q.kind == patternExact:
		return p.Matches(Host{q.text})
	case p.kind == patternBelow && q.kind != patternAny:
		return q.Base() == p.Base() || p.Matches(Host{q.Base()})
	case p.kind == patternPartial && q.kind == patternExact:
		return p.Matches(Host{q.text})
	case p.kind == patternPartial && q.kind == patternPartial:
		pBefore, pAfter := p.halves()
		qBefore, qAfter := q.halves()
		return p.Base() == q.Base() && strings.HasPrefix(qBefore, pBefore) && strings.HasSuffix(qAfter, pAfter)
	default:
		return p == q
	}
}

// PublicSuffix reports whether a wildcard stands directly over a public
// suffix, one that ICANN's registries hand out (*.com, *.co.uk) or a private
// one, under which anyone may take a name (*.blob.core.windows.net). See
// publicsuffix.org. An exact name never does.
func (p Pattern) PublicSuffix() (icann, private bool) {
	switch p.kind {
	case patternAny:
		return true, false
	case patternPartial, patternBelow:
	default:
		return false, false
	}
	base := p.Base()
	below := "x." + base
	suffix, listed := publicsuffix.PublicSuffix(below)
	if suffix != base && suffix != below {
		return false, false
	}
	return listed, !listed && strings.Contains(suffix, ".")
}
