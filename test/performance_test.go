package test

import (
	"regexp"
	"strings"
	"testing"
)

// missed is a row of the goals that a run did not reach: figure, subject,
// measure, goal, what it is.
var missed = regexp.MustCompile(`(?m)^\| (\S+) +\| \S+ +\| ([^|]+?) +\| ([^|]+?) +\| (\S+) +\| \*\*no\*\* +\|$`)

// TestDocsPerformanceNamesEachMiss holds the prose of the last result against
// its table: every miss stands in it, with the very figure.
func TestDocsPerformanceNamesEachMiss(t *testing.T) {
	text := readText(t, "../docs/performance.md")
	_, rest, _ := strings.Cut(text, "## Last result\n")
	prose, rest, ok := strings.Cut(rest, "\n## ")
	rows := missed.FindAllStringSubmatch(rest, -1)
	if !ok || len(rows) != strings.Count(rest, "**no**") {
		t.Fatalf("docs/performance.md has another shape; %d of its misses can be read", len(rows))
	}
	for _, row := range rows {
		if figure := regexp.MustCompile(`(^|[^0-9.])` + regexp.QuoteMeta(row[4]) + `([^0-9]|$)`); !figure.MatchString(prose) {
			t.Errorf("%s, %s, goal %s: the prose of the last result does not say that it is %s", row[1], row[2], row[3], row[4])
		}
	}
}
