package report_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/text"
	"golang.org/x/net/html"

	"sallyport/alerting/report"
)

// hostile are texts that would be more than text where somebody forgot to escape.
var hostile = []string{
	"<script>alert(1)</script>", "</code></td></tr></table><h1>x</h1>", "<img src=//evil.example/i>", "\"><svg onload=alert(1)>", "'><a href=javascript:x>",
	"<!-- ", "]]>", "&lt;b&gt;&#x3c;b>", "{{.}}", "</style><style>*{display:none}", "</title><title>", "-->", "<br>",
	"|", "\\|", "||||", "\\", "\\\\`", "`", "``", "` <b>x</b> `", "```\ncode\n```", "\n\n# heading\n", "\r\n- item", "\n---\n", "| a | b |\n|---|---|",
	"@octocat", "#1", "!1", "corp/app#1", "https://evil.example", "www.evil.example", "mail@evil.example", "[a](https://evil.example)", "![a](//evil.example)", "[^1]", "[a]: b",
	"<https://evil.example>", ":smile:", "$x$", "$`x`$", "*a* _b_ ~~c~~", "\u202egpj.exe", "\u2066x\u2069", "\u05d0\u05d1", "\u0000\u0007\u001b[31m", "\u200b", "\u2028", "\ufeff", "\u00a0",
	"\xff\xfe", strings.Repeat("x", 3000), strings.Repeat("`|", 2000), "  ", "%00", "\U000e0041",
}

// tricked is a log in which everything that a job, or who writes the log, can
// choose is the text.
func tricked(t testing.TB, value string) string {
	t.Helper()
	if len(value) > 1000 {
		value = value[:1000]
	}
	value = "x y" + value // no host, so that no line allows it
	common := map[string]any{"v": 1, "time": "2026-11-23T12:00:00.000000Z", "pool": value, "client": "10.20.0.7",
		"job": map[string]string{"repo": value, "workflow": value, "run_id": "4711", "job": value, "ref": value}}
	var log strings.Builder
	add := func(fields map[string]any) {
		for key, shared := range common {
			if _, own := fields[key]; !own {
				fields[key] = shared
			}
		}
		line, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		log.Write(append(line, '\n'))
	}
	add(map[string]any{"kind": "system", "event": "started"})
	add(map[string]any{"kind": "conn", "id": value, "via": "connect", "host": value, "port": 443, "verdict": "deny", "reason": "not-in-allowlist", "rule": value, "ms": 1, "phase": "refused"})
	add(map[string]any{"kind": "conn", "id": "k3v9x2m4p7qb", "via": "connect", "host": value, "port": 80, "verdict": "allow", "reason": "allowed-by-audit", "would": "not-in-allowlist", "rule": value, "ms": 1, "phase": "open"})
	add(map[string]any{"kind": "conn", "id": "k3v9x2m4p7qb", "via": "connect", "host": value, "port": 80, "verdict": "allow", "reason": "allowed-by-audit", "would": "not-in-allowlist", "rule": value, "sent": 7, "received": 8, "ms": 1, "phase": "close"})
	add(map[string]any{"kind": "dns", "id": value, "by": "client", "name": value, "type": value, "verdict": "deny", "reason": "bad-host", "rule": value, "rcode": "NXDOMAIN", "answers": []string{}, "cached": false, "ms": 1})
	add(map[string]any{"kind": "alert", "id": value, "alert": value, "severity": value, "summary": value, "key": value, "count": 1, "first": common["time"], "last": common["time"], "evidence": []string{value, value}, "host": value, "suggest": value, "closed": value})
	add(map[string]any{"kind": "system", "event": value, "details": map[string]any{"by": value, "hosts": []string{value, value}, "n": 1}})
	add(map[string]any{"kind": "conn", "id": "k3v9x2m4p7qc", "pool": "other", "via": "connect", "host": value, "port": 443, "verdict": "deny", "reason": "bad-host", "ms": 1, "phase": "refused"})
	return log.String()
}

// FuzzInert: whatever a text in the log is, Markdown and HTML have the parts that
// they have with a harmless one. Its seeds are the hostile texts.
func FuzzInert(f *testing.F) {
	for _, value := range hostile {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) { inert(t, value) })
}

func inert(t *testing.T, value string) {
	t.Helper()
	plain, tried := of(t, tricked(t, "plain"), report.Config{Job: "4711"}), of(t, tricked(t, value), report.Config{Job: "4711"})
	md := written(t, tried, "md")
	if got, want := markdownParts(t, md), markdownParts(t, written(t, plain, "md")); !slices.Equal(got, want) {
		t.Errorf("%q makes other parts of the Markdown:\n%s", value, md)
	}
	page := written(t, tried, "html")
	if got, want := htmlParts(t, page), htmlParts(t, written(t, plain, "html")); !slices.Equal(got, want) {
		t.Errorf("%q makes other parts of the page:\n%s", value, page)
	}
	text := written(t, tried, "json")
	valid(t, text)
	for _, output := range []string{md, page, text} {
		if i := strings.IndexFunc(output, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("%q leaves what is not printable: %q", value, output[max(0, i-20):min(len(output), i+20)])
		}
	}
}

// markdownParts are the kinds of the nodes of a document, as GitHub reads it,
// and every text that stands outside of code.
func markdownParts(t *testing.T, source string) (parts []string) {
	t.Helper()
	root := goldmark.New(goldmark.WithExtensions(extension.GFM, extension.Footnote)).Parser().Parse(text.NewReader([]byte(source)))
	err := ast.Walk(root, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		parts = append(parts, n.Kind().String())
		switch n := n.(type) {
		case *ast.CodeSpan:
			return ast.WalkSkipChildren, nil
		case *ast.Text:
			parts = append(parts, string(n.Segment.Value([]byte(source))))
		case *ast.RawHTML:
			parts = append(parts, string(n.Segments.Value([]byte(source))))
		case *ast.Link, *ast.Image, *ast.AutoLink, *ast.HTMLBlock, *ast.FencedCodeBlock, *ast.CodeBlock, *ast.Emphasis:
			t.Errorf("there is a %s", n.Kind())
		}
		return ast.WalkContinue, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return parts
}

// lengths are the classes by which a short text differs from a long one.
var lengths = regexp.MustCompile(`^(short|long)$`)

// htmlParts are the elements and attributes of a page, and the texts that are
// in no code.
func htmlParts(t *testing.T, source string) (parts []string) {
	t.Helper()
	z := html.NewTokenizer(strings.NewReader(source))
	within := 0
	for z.Next() != html.ErrorToken {
		token := z.Token()
		switch token.Type {
		case html.TextToken:
			if within == 0 {
				parts = append(parts, token.Data)
			}
			continue
		case html.StartTagToken:
			if token.Data == "code" {
				within++
			}
		case html.EndTagToken:
			if token.Data == "code" {
				within--
			}
		}
		for i := range token.Attr {
			if token.Attr[i].Key == "class" && lengths.MatchString(token.Attr[i].Val) {
				token.Attr[i].Val = ""
			}
		}
		parts = append(parts, fmt.Sprint(token.Type, token.Data, token.Attr))
	}
	return parts
}

// TestPageAsksForNothing: the page has no script, no link, no picture and no
// address, and a policy that forbids all of them.
func TestPageAsksForNothing(t *testing.T) {
	page := written(t, of(t, story(t), report.Config{Policy: policy(t)}), "html")
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	ids := make(map[string]int)
	policyFound, named := false, []string{}
	for n := range root.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		switch n.Data {
		case "script", "link", "img", "iframe", "object", "embed", "a", "form", "input", "base", "image", "use", "foreignObject", "animate", "set":
			t.Errorf("there is a <%s>", n.Data)
		}
		for _, a := range n.Attr {
			switch key := strings.ToLower(a.Key); {
			case strings.HasPrefix(key, "on"), key == "href", key == "src", key == "style", key == "srcset", key == "action":
				t.Errorf("<%s> has %s", n.Data, a.Key)
			case key == "id":
				ids[a.Val]++
			case key == "aria-labelledby":
				named = append(named, strings.Fields(a.Val)...)
			case key == "content" && strings.HasPrefix(a.Val, "default-src 'none'; style-src 'unsafe-inline';"):
				policyFound = true
			}
		}
	}
	for id, n := range ids {
		if n > 1 {
			t.Errorf("%d elements are %s", n, id)
		}
	}
	for _, id := range named {
		if ids[id] == 0 {
			t.Errorf("%s names something and is not there", id)
		}
	}
	if !policyFound || !strings.Contains(page, `<html lang="en">`) || len(named) < 8 || strings.Contains(page, "url(") || strings.Contains(page, "@import") {
		t.Errorf("policy %v, %d names", policyFound, len(named))
	}
}
