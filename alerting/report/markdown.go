package report

import (
	"encoding/json"
	"io"
	"strings"
)

// The bounds of a report in Markdown: it stays below the 1 MiB that GitHub takes
// for the summary of a step, whatever is in the log.
const (
	markdownRows  = 50 // of a table
	markdownPools = 3  // whose unused rules are shown
	markdownTable = 96 << 10
)

// WriteMarkdown writes the report in the Markdown that GitHub and GitLab show
// (GFM). Values stand in code spans, where neither makes links, mentions,
// references, images or HTML of them.
func (r *Report) WriteMarkdown(w io.Writer) error {
	v := layout{r, markdownRows, markdownPools}.view()
	var b strings.Builder
	b.WriteString("## Sallyport: " + v.Title + "\n\n" + v.Verdict + "\n\n| | |\n|---|---|\n")
	for _, f := range append(v.About, v.Totals...) {
		value := f.Value
		if !f.Ours {
			value = markdownCode(f.Value)
		}
		b.WriteString("| " + f.Label + " | " + value + " |\n")
	}
	for i := range v.Tables {
		v.Tables[i].markdown(&b)
	}
	if len(v.Lacks) > 0 {
		b.WriteString("\n### What this report cannot know\n\n")
	}
	for i := range v.Lacks[:min(len(v.Lacks), markdownRows)] {
		b.WriteString("- ")
		if source := v.Lacks[i].Source; source != "" {
			b.WriteString(markdownCode(source) + ": ")
		}
		b.WriteString(v.Lacks[i].Text + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (t *table) markdown(b *strings.Builder) {
	b.WriteString("\n### " + t.Title)
	if t.Of != "" {
		b.WriteString(" " + markdownCode(t.Of))
	}
	b.WriteString("\n\n")
	if t.Note != "" {
		b.WriteString(t.Note + "\n\n")
	}
	if len(t.Rows) == 0 {
		if t.None != "" {
			b.WriteString(t.None + "\n")
		}
	} else {
		b.WriteString("| " + strings.Join(t.Head, " | ") + " |\n|" + strings.Repeat("---|", len(t.Head)) + "\n")
	}
	more, begin := t.More, b.Len()
	for i, row := range t.Rows {
		if b.Len()-begin > markdownTable {
			more = joined(more, count(len(t.Rows)-i, "row")+" of long values did not fit.")
			break
		}
		for _, c := range row {
			b.WriteString("| " + c.markdown() + " ")
		}
		b.WriteString("|\n")
	}
	if more != "" {
		b.WriteString("\n" + more + "\n")
	}
}

func (c cell) markdown() string {
	parts := make([]string, len(c))
	for i, p := range c {
		parts[i] = p.Text
		if p.Code {
			parts[i] = markdownCode(p.Text)
		}
	}
	return strings.Join(parts, "<br>")
}

// markdownCode puts a value into a code span. What ends a span or a cell, or
// escapes, is replaced by what looks alike; the JSON has the value itself.
func markdownCode(text string) string {
	text = strings.TrimSpace(clean(text))
	if text == "" {
		return "(empty)"
	}
	return "`" + codeReplacer.Replace(text) + "`"
}

var codeReplacer = strings.NewReplacer("`", "'", "|", "\u00a6", "\\", "/")

// WriteJSON writes the report for a program. Values are as they are in the log,
// with everything that is not printable as \uXXXX.
func (r *Report) WriteJSON(w io.Writer) error {
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(r); err != nil {
		return err
	}
	_, err := w.Write(safeJSON([]byte(b.String())))
	return err
}
