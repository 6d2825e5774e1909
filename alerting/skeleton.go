package alerting

import (
	_ "embed" // for the confusables
	"strings"
	"sync"
)

//go:embed confusables.txt
var confusablesText string

// confusables gives what a character looks like, where that is letters, digits
// and hyphens of ASCII: the part of the data of UTS #39 that is about labels of
// host names. confusables.txt says where it is from, and
// TestConfusablesAreCurrent how it is made.
var confusables = sync.OnceValue(func() map[rune]string {
	looks := make(map[rune]string)
	for line := range strings.Lines(confusablesText) {
		target, sources, found := strings.Cut(strings.TrimSpace(line), " ")
		if !found || target == "#" {
			continue
		}
		for _, r := range sources {
			looks[r] = target
		}
	}
	return looks
})

// drawnAlike are pairs of letters that look like one in many fonts and that the
// data of UTS #39 does not have.
var drawnAlike = map[rune]string{'w': "vv", 'd': "cl"}

// skeleton is what a label looks like, after UTS #39 section 4: two labels with
// one skeleton are hard to tell apart. The label is lower case, and decoded if
// it was xn--. Unlike the skeleton of the standard this one does not take
// characters apart, as a label of a host name is in normal form C.
func skeleton(label string) string {
	looks := confusables()
	var b strings.Builder
	for _, r := range label {
		like, known := looks[r]
		if !known {
			like = string(r)
		}
		for _, r := range like {
			if pair := drawnAlike[r]; pair != "" {
				b.WriteString(pair)
			} else {
				b.WriteRune(r)
			}
		}
	}
	return b.String()
}
