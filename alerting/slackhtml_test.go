package alerting_test

import (
	"bytes"
	"encoding/json"
	"html/template"
	"testing"
)

// A slackNode is any block, element or object of a payload.
type slackNode struct {
	Type     string
	Text     json.RawMessage // a string, or an object with one
	URL      string
	Style    json.RawMessage
	Elements []slackNode
	Fields   []slackNode
}

// Said is the text of a node.
func (n slackNode) Said() string {
	var text string
	if json.Unmarshal(n.Text, &text) == nil {
		return text
	}
	var object struct{ Text string }
	_ = json.Unmarshal(n.Text, &object)
	return object.Text
}

// Bold reports whether a text element is bold.
func (n slackNode) Bold() bool {
	var style struct{ Bold bool }
	_ = json.Unmarshal(n.Style, &style)
	return style.Bold
}

// slackPage shows a payload as Slack does: its type sizes, colours and spaces,
// as far as an eye can tell.
var slackPage = template.Must(template.New("page").Parse(`<!DOCTYPE html><meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>
body{margin:0;padding:12px 16px;background:#fff;color:#1d1c1d;font:15px/1.46 Lato,"Noto Sans",sans-serif}
.m{display:flex;gap:8px;margin-bottom:14px}.i{flex:0 0 36px;height:36px;border-radius:4px;background:#274c77;color:#fff;text-align:center;line-height:36px;font-weight:900}
.c{flex:1;min-width:0;overflow-wrap:anywhere}.n{font-weight:900}.a{font-size:10px;background:#e8e8e8;border-radius:2px;padding:1px 3px;color:#616061;font-weight:700;vertical-align:1px}
.t{font-size:12px;color:#616061;font-weight:400}h1{font-size:18px;line-height:1.33;margin:6px 0 4px;font-weight:900}
.at{display:flex;gap:12px;margin:4px 0 8px;max-width:660px}.bar{flex:0 0 4px;border-radius:8px}.in{flex:1;min-width:0}
.s{white-space:pre-wrap}pre{margin:4px 0;padding:8px;background:#f8f8f8;border:1px solid #ddd;border-radius:4px;font:12px/1.5 Monaco,"DejaVu Sans Mono",monospace;white-space:pre-wrap}
ul{margin:2px 0;padding-left:26px}.x{font-size:12px;color:#616061;margin:6px 0 2px}a{color:#1264a3;text-decoration:none}
</style>{{define "in"}}{{range .Elements}}{{if eq .Type "link"}}<a href="{{.URL}}">{{.Said}}</a>{{else if .Bold}}<b>{{.Said}}</b>{{else}}{{.Said}}{{end}}{{end}}{{end}}
{{define "block"}}{{if eq .Type "header"}}<h1>{{.Said}}</h1>
{{else if eq .Type "context"}}<div class="x">{{range .Elements}}{{.Said}} {{end}}</div>
{{else if eq .Type "rich_text"}}{{range .Elements}}{{if eq .Type "rich_text_list"}}<ul>{{range .Elements}}<li>{{template "in" .}}{{end}}</ul>
{{else if eq .Type "rich_text_preformatted"}}<pre>{{template "in" .}}</pre>{{else}}<div class="s">{{template "in" .}}</div>{{end}}{{end}}
{{else}}<div>({{.Type}})</div>{{end}}{{end}}
{{range .}}<div class="m"><div class="i">S</div><div class="c"><span class="n">Sallyport</span> <span class="a">APP</span> <span class="t">1:00 PM</span>
{{range .Blocks}}{{template "block" .}}{{end}}{{range .Attachments}}<div class="at"><div class="bar" style="background:{{.Color}}"></div><div class="in">{{range .Blocks}}{{template "block" .}}{{end}}</div></div>{{end}}
</div></div>{{end}}
`))

// renderSlack makes a page of payloads, as one channel shows them.
func renderSlack(t *testing.T, payloads ...[]byte) []byte {
	t.Helper()
	type payload struct {
		Blocks      []slackNode
		Attachments []struct {
			Color  string
			Blocks []slackNode
		}
	}
	messages := make([]payload, len(payloads))
	for i, body := range payloads {
		if err := json.Unmarshal(body, &messages[i]); err != nil {
			t.Fatal(err)
		}
	}
	var page bytes.Buffer
	if err := slackPage.Execute(&page, messages); err != nil {
		t.Fatal(err)
	}
	return page.Bytes()
}
