package diag

import (
	"bytes"
	"regexp"
	"sort"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// mends says what to do about what yaml.v3 finds, by a part of its message.
// The first that fits is taken.
var mends = []struct{ part, text string }{
	{"found a tab character", "a tab stands where spaces must; indent with spaces"},
	{"that violates indentation", "a tab stands where spaces must; indent with spaces"},
	{"mapping values are not allowed", "a colon stands where no key can begin; indent the line like its neighbours, or put quotes around the value"},
	{"did not find expected ',' or ']'", "a list is not closed, or lacks a comma; end it with ]"},
	{"did not find expected ',' or '}'", "a mapping is not closed, or lacks a comma; end it with }"},
	{"while scanning a quoted scalar", "a quote is not closed; end the text with the quote it began with"},
	{"found unexpected end of stream", "a quote is not closed; end the text with the quote it began with"},
	{"found unknown escape character", `a backslash in double quotes begins an escape that does not exist; use single quotes`},
	{"could not find expected ':'", "a key lacks its colon; write \"key: value\""},
	{"did not find expected '-' indicator", "an item of a list lacks its dash, or stands at the wrong indent; write \"- item\" below the other items"},
	{"did not find expected key", "a line stands at the wrong indent; indent it like its neighbours"},
	{"did not find expected node content", "a value is missing; write it, or remove the comma"},
	{"found character that cannot start any token", "a value begins with a character that has a meaning of its own; put quotes around it"},
	{"control characters are not allowed", "the file holds a control character; remove it"},
	{"undefined tag handle", "a value begins with !, which makes a tag; put quotes around it"},
	{"found incompatible YAML document", "the file asks for another version of YAML; remove the %YAML line"},
}

// bareStar finds a value that begins with * and has no quotes.
var bareStar = regexp.MustCompile(`^(?:\s*(?:-\s+)*(?:[^\s#'"\[{][^#'"\[{]*:\s+)?(?:[^#'"]*[\[{,]\s*)?)(\*)`)

// bareTab finds a line that is indented with a tab.
var bareTab = regexp.MustCompile(`^ *(\t)\s*\S`)

// syntaxError reports what yaml.v3 could not read. It stands alone: nothing
// after it can be trusted.
func (p *parser) syntaxError(err error) {
	text := err.Error()
	star := strings.Contains(text, "scanning an alias") || strings.Contains(text, "unknown anchor") ||
		strings.Contains(text, "alphabetic or numeric character")
	if star {
		if at, found := p.find(bareStar); found {
			p.secret(at.Pos.Line)
			p.report.Errorf(at, "a value that begins with * is an alias in YAML; quote it: \"*.example.com\"; other problems are looked for after that")
			return
		}
	}
	if at, found := p.find(bareTab); found && strings.Contains(text, "character that cannot start any token") {
		p.secret(at.Pos.Line)
		p.report.Errorf(at, "a tab stands where spaces must; indent with spaces")
		return
	}
	at := p.lineStart(p.culprit(text))
	if strings.Contains(text, "control characters") {
		if found, ok := p.find(controlByte); ok {
			at = found
		}
	}
	p.secret(at.Pos.Line)
	for _, m := range mends {
		if strings.Contains(text, m.part) {
			p.report.Errorf(at, "this is not valid YAML: %s", m.text)
			return
		}
	}
	p.report.Errorf(at, "this is not valid YAML; look for a missing quote, bracket, colon or indent near this line")
}

// controlByte finds a character that YAML forbids.
var controlByte = regexp.MustCompile(`([\x00-\x08\x0b\x0c\x0e-\x1f\x7f])`)

// culprit finds the line that an error of yaml.v3 is about. Its parser's
// errors ("did not find ...") count lines from 0 and speak of the line where
// the construct began; for a wrong indent that is far from the fault, so we
// look for the first line without which there is no such error.
func (p *parser) culprit(text string) int {
	line := max(lineOf(text), 1)
	for _, block := range []string{"did not find expected key", "did not find expected '-' indicator"} {
		if !strings.Contains(text, block) {
			continue
		}
		lines := p.report.lines[p.file]
		return 1 + sort.Search(len(lines)-1, func(n int) bool {
			var doc yaml.Node
			err := yaml.Unmarshal(append(bytes.Join(lines[:n+1], []byte("\n")), '\n'), &doc)
			return err != nil && strings.Contains(err.Error(), block)
		})
	}
	if strings.Contains(text, "did not find expected") && !strings.Contains(text, "alphabetic") {
		line++
	}
	return line
}

// find gives the place of the first submatch of the first line that matches.
func (p *parser) find(pattern *regexp.Regexp) (Place, bool) {
	for i, line := range p.report.lines[p.file] {
		if m := pattern.FindSubmatchIndex(line); m != nil {
			col := utf8.RuneCount(line[:m[2]]) + 1
			return Place{Pos: Pos{File: p.file, Line: i + 1, Col: col}}, true
		}
	}
	return Place{}, false
}

// lineStart gives the place of the first word of a line.
func (p *parser) lineStart(line int) Place {
	lines := p.report.lines[p.file]
	line = min(line, len(lines))
	text := lines[line-1]
	col := len(text) - len(bytes.TrimLeft(text, " \t")) + 1
	return Place{Pos: Pos{File: p.file, Line: line, Col: col}}
}

// secretWords are what lines with secrets have in them.
var secretWords = regexp.MustCompile(`(?i)webhook|secret|token|password|://`)

// secret hides a line that may hold a secret, where no tree tells which do:
// the line itself speaks of one, or the two before it do.
func (p *parser) secret(line int) {
	lines := p.report.lines[p.file]
	for i := max(line-3, 0); i < line; i++ {
		if secretWords.Match(lines[i]) {
			p.report.Hide(p.file, line, line)
		}
	}
}
