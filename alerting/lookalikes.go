package alerting

import (
	"hash/maphash"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"

	"sallyport/allowlists"
)

// lookalikes finds, to a registrable domain, the allowed one of a pool that it
// might be taken for. It is made once from the pool's rules, takes some 200
// bytes for each domain in them, and never changes.
//
// index has one number for each domain, for its label, for each way to spell
// that with one letter less, and for its skeleton: 40 bits of hash, and 24 of
// the place in domains. Two labels are one edit apart only if they share such a spelling
// (insertions, deletions, substitutions and swaps all do), so that a look-up
// reads a few places of the index, however many rules there are.
type lookalikes struct {
	domains []likeDomain
	index   []uint64 // sorted
}

// A likeDomain is a registrable domain that a pool knows.
type likeDomain struct {
	label  string // the first, decoded if it was xn--
	suffix string // the public suffix, as in DNS
	// genuine only says that nobody need be warned of this very domain: it is
	// quiet, or allowed by a built-in preset that the pool does not use.
	genuine bool
}

// key names the domain, with its label decoded.
func (d likeDomain) key() string { return d.label + "." + d.suffix }

// String is the domain as in DNS.
func (d likeDomain) String() string {
	label, err := idna.Punycode.ToASCII(d.label)
	if err != nil {
		label = d.label
	}
	return label + "." + d.suffix
}

const (
	likePlaces  = 1 << 24 // domains of one pool that are compared; those that come later are not
	likeReads   = 64      // domains that one spelling is held against
	likeHashing = ^uint64(likePlaces - 1)
)

var likeSeed = maphash.MakeSeed()

// newLookalikes indexes the registrable domains of a pool.
func newLookalikes(pool *allowlists.Pool) *lookalikes {
	l, seen := &lookalikes{}, make(map[likeDomain]bool)
	add := func(rules []allowlists.Rule, genuine bool) {
		for i := range rules {
			for _, domain := range []func(string) (likeDomain, bool){registrable, company} {
				d, ok := domain(rules[i].Host.Base())
				if !ok || seen[d] || len(l.domains) == likePlaces {
					continue
				}
				seen[d] = true
				d.genuine = genuine
				l.add(d)
			}
		}
	}
	add(pool.Spec().Allow, false)
	add(pool.Granted(), false)
	add(pool.Spec().Quiet, true)
	add(allowlists.PresetRules(), true)
	slices.Sort(l.index)
	return l
}

func (l *lookalikes) add(d likeDomain) {
	place := uint64(len(l.domains))
	l.domains = append(l.domains, d)
	l.index = append(l.index, likeKey('x', d.key())|place)
	if d.genuine {
		return // nobody is warned of what looks like it
	}
	l.index = append(l.index, likeKey('s', skeleton(d.label))|place, likeKey('d', d.label)|place)
	for shorter := range withoutOne(d.label) {
		l.index = append(l.index, likeKey('d', shorter)|place)
	}
}

// likeKey is the hash of a spelling of a kind: x for a domain, s for the skeleton
// of a label, d for a label as it is or with one letter less.
func likeKey(kind byte, text string) uint64 {
	var h maphash.Hash
	h.SetSeed(likeSeed)
	_ = h.WriteByte(kind)
	_, _ = h.WriteString(text)
	return h.Sum64() & likeHashing
}

// withoutOne gives each way to spell a label with one letter less.
func withoutOne(label string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for i, r := range label {
			if !yield(label[:i] + label[i+utf8.RuneLen(r):]) {
				return
			}
		}
	}
}

// registrable splits the registrable domain off a host; not ok if it has none.
func registrable(host string) (likeDomain, bool) {
	suffix, _ := publicsuffix.PublicSuffix(host)
	return directlyOver(suffix, host)
}

// company is the domain that a registry of ICANN gave to whoever lets others
// have names under a private suffix: windows.net for
// NAME.blob.core.windows.net. Not ok for a host under no such suffix.
func company(host string) (likeDomain, bool) {
	suffix, icann := publicsuffix.PublicSuffix(host)
	if icann {
		return likeDomain{}, false
	}
	for !icann && strings.Contains(suffix, ".") {
		host = suffix
		_, parent, _ := strings.Cut(suffix, ".")
		suffix, icann = publicsuffix.PublicSuffix(parent)
	}
	return directlyOver(suffix, host)
}

// directlyOver is the domain directly over a public suffix in a host.
func directlyOver(suffix, host string) (likeDomain, bool) {
	label, found := strings.CutSuffix(host, "."+suffix)
	if !found || suffix == "" {
		return likeDomain{}, false
	}
	label = label[strings.LastIndexByte(label, '.')+1:]
	if strings.HasPrefix(label, "xn--") {
		decoded, err := idna.Punycode.ToUnicode(label)
		if err != nil || !utf8.ValidString(decoded) {
			return likeDomain{}, false
		}
		label = decoded
	}
	return likeDomain{label: label, suffix: suffix}, true
}

// of gives the allowed domain that a refused one might be taken for, and in
// which way it differs. Both have the same public suffix, unless that alone is
// what differs. least is how many letters the label must have.
func (l *lookalikes) of(d likeDomain, least int) (allowed likeDomain, how string, ok bool) {
	if itself := l.find('x', d.key(), func(known likeDomain) bool { return known.key() == d.key() }); len(itself) > 0 {
		return allowed, "", false
	}
	if allowed, how, ok = l.alike(d, least); ok || letters(d.label) < least {
		return allowed, how, ok
	}
	found := l.find('d', d.label, func(known likeDomain) bool {
		return known.label == d.label && endsAsTLD(known.suffix)
	})
	if len(found) > 0 && endsAsTLD(d.suffix) {
		return found[0], "with another ending", true
	}
	return allowed, "", false
}

// alike gives a domain under the same public suffix that another might be taken
// for, and in which way it differs.
func (l *lookalikes) alike(d likeDomain, least int) (known likeDomain, how string, ok bool) {
	looks := skeleton(d.label)
	same := func(known likeDomain) bool {
		return known.suffix == d.suffix && known.label != d.label && skeleton(known.label) == looks
	}
	for _, known := range l.find('s', looks, same) {
		if max(letters(d.label), letters(known.label)) >= least {
			return known, "which looks the same", true
		}
	}
	if letters(d.label) < least {
		return known, "", false
	}
	near := func(known likeDomain) bool { return known.suffix == d.suffix && oneEdit(known.label, d.label) }
	if found := l.find('d', d.label, near); len(found) > 0 {
		return found[0], "one letter away", true
	}
	for shorter := range withoutOne(d.label) {
		if found := l.find('d', shorter, near); len(found) > 0 {
			return found[0], "one letter away", true
		}
	}
	return known, "", false
}

// find gives the domains that have a spelling of a kind and fit.
func (l *lookalikes) find(kind byte, text string, fits func(likeDomain) bool) (found []likeDomain) {
	key := likeKey(kind, text)
	at, _ := slices.BinarySearch(l.index, key)
	for _, entry := range l.index[at:min(len(l.index), at+likeReads)] {
		if entry&likeHashing != key {
			break
		}
		if d := l.domains[entry&^likeHashing]; fits(d) {
			found = append(found, d)
		}
	}
	return found
}

// letters counts those of a label.
func letters(label string) (n int) {
	for _, r := range label {
		if unicode.IsLetter(r) {
			n++
		}
	}
	return n
}

// endsAsTLD reports whether a public suffix is one that registries of ICANN
// hand out, or a single label: not one under which a company lets others be.
func endsAsTLD(suffix string) bool {
	_, icann := publicsuffix.PublicSuffix(suffix)
	return icann || !strings.Contains(suffix, ".")
}

// oneEdit reports whether one letter put in, left out, replaced, or swapped
// with its neighbour makes a into b. A digit in the place of a digit is no
// edit: names in a row are not alike.
func oneEdit(a, b string) bool {
	x, y := []rune(a), []rune(b)
	for len(x) > 0 && len(y) > 0 && x[0] == y[0] {
		x, y = x[1:], y[1:]
	}
	for len(x) > 0 && len(y) > 0 && x[len(x)-1] == y[len(y)-1] {
		x, y = x[:len(x)-1], y[:len(y)-1]
	}
	switch {
	case len(x) == 1 && len(y) == 1:
		return !unicode.IsDigit(x[0]) || !unicode.IsDigit(y[0])
	case len(x) == 2 && len(y) == 2:
		return x[0] == y[1] && x[1] == y[0]
	default:
		return len(x)+len(y) == 1
	}
}
