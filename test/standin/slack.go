package main

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"unicode/utf16"
)

// webhook answers as Slack's incoming webhooks do: "ok", or 400 and why.
// chosen is text that a job chose.
func webhook(chosen string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
		if err != nil {
			return
		}
		problems := check(body, chosen)
		if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); r.Method != http.MethodPost || kind != "application/json" {
			problems = append(problems, fmt.Sprintf("%s with Content-Type %q", r.Method, r.Header.Get("Content-Type")))
		}
		entry{Host: r.Host, Path: r.URL.Path, Body: string(body), Problems: problems}.write()
		if len(problems) > 0 {
			http.Error(w, "invalid_blocks", http.StatusBadRequest)
			return
		}
		_, _ = io.WriteString(w, "ok")
	})
}

// check lists what is wrong with a payload: Slack's own limits (docs.slack.dev,
// "Blocks" and "Composition objects"), and text of a job outside of the elements
// that Slack shows as they are, plain_text and the text of rich_text.
func check(body []byte, chosen string) []string {
	var payload struct {
		Text   string           `json:"text"`
		Blocks []map[string]any `json:"blocks"`
		// Attachments have a colour and blocks of their own.
		Attachments []struct {
			Color  string           `json:"color"`
			Blocks []map[string]any `json:"blocks"`
		} `json:"attachments"`
	}
	if err := json.Unmarshal(body, &payload); err != nil {
		return []string{"no JSON: " + err.Error()}
	}
	c := checker{chosen: chosen}
	if payload.Text == "" {
		c.fault("no text for notifications")
	}
	c.text("", "the notification text", payload.Text)
	blocks := payload.Blocks
	for _, a := range payload.Attachments {
		if len(a.Blocks) == 0 || a.Color == "" {
			c.fault("an attachment without blocks or a colour")
		}
		blocks = append(blocks, a.Blocks...)
	}
	if n := len(blocks); len(payload.Blocks) == 0 || n > 50 {
		c.fault("%d blocks", n)
	}
	for _, block := range blocks {
		kind, _ := block["type"].(string)
		switch known := []string{"header", "section", "context", "divider", "rich_text"}; {
		case !slices.Contains(known, kind):
			c.fault("block type %q", kind)
		case kind == "header":
			c.walk(block["text"], kind, 150)
		default:
			if fields, _ := block["fields"].([]any); len(fields) > 10 {
				c.fault("%d fields", len(fields))
			}
			if elements, _ := block["elements"].([]any); kind == "context" && len(elements) > 10 {
				c.fault("%d elements", len(elements))
			}
			c.walk(block, kind, 3000)
		}
	}
	if !c.seen {
		c.fault("%q is nowhere in the message", chosen)
	}
	return c.problems
}

// A checker goes through the elements of one message.
type checker struct {
	chosen   string
	seen     bool // the chosen text, in a place that may have it
	problems []string
}

func (c *checker) fault(format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

// walk checks each text below node; block is the type of the block it is in,
// limit the most characters of one.
func (c *checker) walk(node any, block string, limit int) {
	switch node := node.(type) {
	case []any:
		for _, child := range node {
			c.walk(child, block, limit)
		}
	case map[string]any:
		kind, _ := node["type"].(string)
		if text, is := node["text"].(string); is {
			if n := len(utf16.Encode([]rune(text))); n == 0 || n > limit || (block == "section" && n > 2000) {
				c.fault("%d characters in a %s of a %s", n, kind, block)
			}
			c.text(kind, "a "+kind+" of a "+block, text)
		}
		if url, is := node["url"].(string); is && strings.Contains(url, c.chosen) {
			c.fault("text of a job in the URL of a link")
		}
		for _, child := range node {
			c.walk(child, block, limit)
		}
	}
}

// text checks that what a job chose stands only where nothing reads it.
func (c *checker) text(kind, place, text string) {
	switch {
	case !strings.Contains(text, c.chosen):
	case kind == "plain_text", kind == "text": // "text" exists in rich_text only
		c.seen = true
		if n := len(utf16.Encode([]rune(text))); n > 200 {
			c.fault("%d characters with text of a job in %s", n, place)
		}
	default:
		c.fault("text of a job in %s", place)
	}
}
