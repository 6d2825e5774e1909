package allowlists

import (
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sallyport/allowlists/diag"
)

// The kinds of single values. They are set in init, as their parsers speak of
// the loader, whose schema speaks of the kinds.
var sectionKind, textKind, wordKind, boolKind, countKind, sizeKind, durationKind, dateKind, pathKind *kind

func init() {
	sectionKind = &kind{name: "a mapping of keys"}
	textKind = &kind{"text", parseText}
	wordKind = &kind{"a word", parseWord}
	boolKind = &kind{"true or false", parseBool}
	countKind = &kind{"a whole number", parseCount}
	sizeKind = &kind{"a size such as 50MB or 64KiB", parseSize}
	durationKind = &kind{"a duration such as 30s, 15m or 7d", parseDuration}
	dateKind = &kind{"a day such as 2027-03-01", parseDate}
	pathKind = &kind{"a path", parsePath}
}

// scalar gives the text of a value that must be text, or that a variable made.
func (l *loader) scalar(k *key, n *diag.Node) (string, bool) {
	if n.Kind == diag.Text {
		return n.Text, true
	}
	return "", l.wrongKind(k, n)
}

// word gives the text of a value of any scalar kind, for values that YAML
// takes for something else: 30, 2027-03-01.
func (l *loader) word(k *key, n *diag.Node) (string, bool) {
	if n.Kind == diag.Text || n.Kind == diag.Number {
		return n.Text, true
	}
	return "", l.wrongKind(k, n)
}

// maxTextBytes bounds a text value; reasons and owners are shown to people.
const maxTextBytes = 4096

func parseText(l *loader, k *key, n *diag.Node) (any, bool) {
	text, ok := l.scalar(k, n)
	if !ok {
		return nil, false
	}
	if len(text) > maxTextBytes {
		l.report.Errorf(n.Place, "%s is longer than %d bytes; shorten it", k.label(), maxTextBytes)
		return nil, false
	}
	return text, true
}

func parseWord(l *loader, k *key, n *diag.Node) (any, bool) {
	text, ok := l.scalar(k, n)
	if !ok {
		return nil, false
	}
	var all []string
	for _, w := range k.words {
		alias, word, isAlias := strings.Cut(w, "=")
		if text == alias {
			if isAlias {
				return word, true
			}
			return alias, true
		}
		all = append(all, alias)
	}
	mend := "it takes " + k.takes()
	if near := diag.Nearest(text, all); near != "" {
		mend += "; did you mean " + strconv.Quote(near) + "?"
	}
	l.report.Errorf(n.Place, "%s cannot be %q; %s", k.label(), short(text), mend)
	return nil, false
}

func parseBool(l *loader, k *key, n *diag.Node) (any, bool) {
	if (n.Kind == diag.Bool || n.Expanded) && (n.Text == "true" || n.Text == "false") {
		return n.Text == "true", true
	}
	if n.Kind == diag.Bool {
		l.report.Errorf(n.Place, "%s is %q; write true or false in lower case", k.label(), n.Text)
		return nil, false
	}
	return nil, l.wrongKind(k, n)
}

// digits reports whether text is a decimal number without sign or point.
func digits(text string) bool { return text != "" && strings.Trim(text, "0123456789") == "" }

func parseCount(l *loader, k *key, n *diag.Node) (any, bool) {
	if n.Kind != diag.Number && !n.Expanded {
		return nil, l.wrongKind(k, n)
	}
	if !digits(n.Text) {
		l.report.Errorf(n.Place, "%s %q is no whole number; write it in digits", k.label(), short(n.Text))
		return nil, false
	}
	number, err := strconv.ParseInt(n.Text, 10, 64)
	if !l.within(k, n, number, err != nil, math.MaxInt32, strconv.Itoa) {
		return nil, false
	}
	return int(number), true
}

// within holds a number against the bounds of its key; over says that it did
// not even fit into 64 bits.
func (l *loader) within(k *key, n *diag.Node, number int64, over bool, bound int64, show func(int) string) bool {
	if k.most > 0 {
		bound = k.most
	}
	switch {
	case over || number > bound:
		l.report.Errorf(n.Place, "%s %s is too large; it is at most %s", k.label(), short(n.Text), show(int(bound)))
	case number < k.least:
		l.report.Errorf(n.Place, "%s %s is too small; it is at least %s", k.label(), short(n.Text), show(int(k.least)))
	default:
		return true
	}
	return false
}

// sizeUnits are the units of sizes, in bytes.
var sizeUnits = map[string]int64{
	"": 1, "B": 1,
	"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
	"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
}

// maxSize bounds a size, 8,192 TiB.
const maxSize = 1 << 53

func parseSize(l *loader, k *key, n *diag.Node) (any, bool) {
	text, ok := l.word(k, n)
	if !ok {
		return nil, false
	}
	number := strings.TrimRight(text, "BKMGTikmgtb")
	unit, known := sizeUnits[text[len(number):]]
	switch {
	case !digits(number):
		l.report.Errorf(n.Place, "%s %q is no size; write a whole number and a unit, such as 50MB", k.label(), short(text))
		return nil, false
	case !known:
		l.report.Errorf(n.Place, "%s %q has an unknown unit; units are kB, MB, GB, TB (powers of 1000), KiB, MiB, GiB and TiB (of 1024)", k.label(), short(text))
		return nil, false
	}
	count, err := strconv.ParseInt(number, 10, 64)
	over := err != nil || count > maxSize/unit
	if !l.within(k, n, count*unit, over, maxSize, bytesText) {
		return nil, false
	}
	return count * unit, true
}

// bytesText writes a size for a message.
func bytesText(size int) string {
	if size == 1 {
		return "1 byte"
	}
	return strconv.Itoa(size) + " bytes"
}

// maxDuration bounds a duration, ten years.
const maxDuration = 3650 * 24 * time.Hour

// durationUnits are the units of durations, the longer spellings first.
var durationUnits = []struct {
	name string
	unit time.Duration
}{
	{"ms", time.Millisecond}, {"s", time.Second}, {"m", time.Minute}, {"h", time.Hour}, {"d", 24 * time.Hour},
}

func parseDuration(l *loader, k *key, n *diag.Node) (any, bool) {
	text, ok := l.word(k, n)
	if !ok {
		return nil, false
	}
	if digits(text) {
		l.report.Errorf(n.Place, "%s %s has no unit; write %ss for seconds, or use ms, m, h or d", k.label(), short(text), short(text))
		return nil, false
	}
	total, over, ok := readDuration(text)
	if !ok {
		l.report.Errorf(n.Place, "%s %q is no duration; write a whole number and a unit (ms, s, m, h or d), such as 15m", k.label(), short(text))
		return nil, false
	}
	if !l.within(k, n, int64(total), over, int64(maxDuration), func(d int) string { return durationText(time.Duration(d)) }) {
		return nil, false
	}
	return total, true
}

// readDuration reads whole numbers with units, such as 1h30m; over says that
// the sum is beyond every bound.
func readDuration(text string) (total time.Duration, over, ok bool) {
	if text == "" {
		return 0, false, false
	}
	for text != "" {
		number := text[:len(text)-len(strings.TrimLeft(text, "0123456789"))]
		text = text[len(number):]
		var unit time.Duration
		for _, u := range durationUnits {
			if rest, found := strings.CutPrefix(text, u.name); found {
				unit, text = u.unit, rest
				break
			}
		}
		if unit == 0 || number == "" {
			return 0, false, false
		}
		count, err := strconv.ParseInt(number, 10, 64)
		if err != nil || count > int64(maxDuration/unit) || total > maxDuration {
			over = true
			continue
		}
		total += time.Duration(count) * unit
	}
	return total, over, true
}

// durationText writes a duration as the file does: 14d, 90s.
func durationText(d time.Duration) string {
	for i := len(durationUnits) - 1; i >= 0; i-- {
		if u := durationUnits[i]; d%u.unit == 0 && d >= u.unit {
			return strconv.FormatInt(int64(d/u.unit), 10) + u.name
		}
	}
	return "0s"
}

func parseDate(l *loader, k *key, n *diag.Node) (any, bool) {
	text, ok := l.word(k, n)
	if !ok {
		return nil, false
	}
	day, err := time.Parse(time.DateOnly, text)
	if err != nil {
		l.report.Errorf(n.Place, "%s %q is no day; write year, month and day, such as 2027-03-01", k.label(), short(text))
		return nil, false
	}
	return day, true
}

func parsePath(l *loader, k *key, n *diag.Node) (any, bool) {
	text, ok := l.scalar(k, n)
	switch {
	case !ok:
		return nil, false
	case text == "":
		return "", true
	case strings.ContainsAny(text, "\x00\n\r"):
		l.report.Errorf(n.Place, "%s holds a character that no path has; remove it", k.label())
		return nil, false
	default:
		return filepath.Clean(text), true
	}
}
