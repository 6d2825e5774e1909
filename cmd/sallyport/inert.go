package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// printable keeps a terminal from acting on what a job chose.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return '?'
		}
		return r
	}, text)
}

// shownMost is how many characters of a name stand in a line of text.
const shownMost = 260

// brief is printable, cut to shownMost.
func brief(text string) string {
	if text = printable(text); len(text) > shownMost {
		return text[:shownMost] + "..."
	}
	return text
}

// inert keeps lines of our own, which may hold names of files in any script,
// from steering a terminal: control characters and those that turn the order of
// writing around become "?". Ends of lines and tabs stay.
func inert(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, text)
}

// An inertError is an error with the name of a file, as one line that steers no
// terminal.
type inertError struct{ error }

func (e inertError) Error() string { return strings.ReplaceAll(inert(e.error.Error()), "\n", "?") }

func (e inertError) Unwrap() error { return e.error }

// printJSON writes a value for a program, readable for people: whatever does not
// show as itself on a terminal is escaped.
func printJSON(w io.Writer, value any) error {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		return err
	}
	_, err := w.Write(escaped(text.Bytes()))
	return err
}

// escaped is JSON with what cannot be printed written as \u202e is. Beyond ASCII
// there is nothing but text in JSON, and the encoder sees to what is below.
func escaped(text []byte) []byte {
	if bytes.IndexFunc(text, hides) < 0 {
		return text
	}
	out := make([]byte, 0, len(text)+64)
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		switch {
		case !hides(r):
			out = append(out, text[:size]...)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		text = text[size:]
	}
	return out
}

// hides reports whether a character does not show as itself.
func hides(r rune) bool { return r >= 0x7f && !unicode.IsPrint(r) }
