package alerting_test

import (
	"encoding/json"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"

	"sallyport/alerting"
	"sallyport/allowlists"
)

// slackLimits are those of Slack and of docs/alerts.md, by element type, in
// characters.
var slackLimits = map[string]int{"header": 150, "plain_text": 200, "text": 200, "link": 200}

// someLinks are templates, and linkOfOurs is what they may become.
var (
	someLinks  = allowlists.Links{Docs: "https://wiki.corp.example/sallyport#{alert}", Event: "https://logs.corp.example/sallyport?id={id}"}
	linkOfOurs = regexp.MustCompile(`^https://(wiki\.corp\.example/sallyport#[a-z-]+|logs\.corp\.example/sallyport\?id=[a-z0-9-]+)$`)
)

// checkSlack holds a message against what Slack takes, and returns the texts
// that stand where no markup is read.
func checkSlack(t testing.TB, body []byte) (texts []string) {
	t.Helper()
	if !utf8.Valid(body) {
		t.Fatalf("not UTF-8: %q", body)
	}
	var payload struct {
		Text        string
		Blocks      []map[string]any
		Attachments []struct {
			Color  string
			Blocks []map[string]any
		}
	}
	if err := json.Unmarshal(body, &payload); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	blocks := payload.Blocks
	for _, a := range payload.Attachments {
		if n := len(a.Blocks); n == 0 || n > 5 || len(a.Color) != 7 { // Slack may hide what comes behind the fifth
			t.Fatalf("an attachment of %d blocks in the colour %q", n, a.Color)
		}
		blocks = append(blocks, a.Blocks...)
	}
	if n := len(blocks); len(payload.Blocks) == 0 || n > 50 {
		t.Fatalf("%d blocks", n)
	}
	for _, c := range payload.Text {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-:,() ", c) {
			t.Fatalf("the notification holds %q: %q", c, payload.Text)
		}
	}
	if len(payload.Text) > 150 {
		t.Fatalf("the notification is %d bytes", len(payload.Text))
	}
	var walk func(within string, value any)
	walk = func(within string, value any) {
		switch v := value.(type) {
		case []any:
			for _, item := range v {
				walk(within, item)
			}
		case map[string]any:
			kind, _ := v["type"].(string)
			switch kind {
			case "header", "section", "context", "divider", "rich_text", "rich_text_section", "rich_text_list", "rich_text_preformatted", "plain_text", "text":
			case "link":
				if url, _ := v["url"].(string); !linkOfOurs.MatchString(url) {
					t.Fatalf("a link to %q", url)
				}
			default:
				t.Fatalf("an element of type %q in %.2000s", kind, body)
			}
			if fields, ok := v["fields"].([]any); ok && (len(fields) == 0 || len(fields) > 10) {
				t.Fatalf("%d fields", len(fields))
			}
			if text, ok := v["text"].(string); ok {
				limit := slackLimits[kind]
				if within == "header" {
					limit = slackLimits["header"]
				}
				if n := len(utf16.Encode([]rune(text))); n == 0 || n > limit {
					t.Fatalf("%d characters in a %s of %s: %q", n, kind, within, text)
				}
				texts = append(texts, text)
			}
			for key, item := range v {
				if key == "style" {
					continue
				}
				if key != "text" {
					walk(kind, item)
				} else if _, ok := item.(map[string]any); ok {
					walk(kind, item)
				}
			}
		}
	}
	for _, block := range blocks {
		walk("", block)
	}
	return texts
}

func anItem() alerting.SlackItem {
	return alerting.SlackItem{
		Alert: alerting.Alert{
			ID: "k3v9x2m4p7qa", Alert: alerting.AlertDeniedEgress, Severity: alerting.Medium, Summary: "evil.example was refused", Pool: "build",
			Client: netip.MustParseAddr("10.20.0.7"), Reason: "not-in-allowlist", Count: 7, First: noon, Last: noon, Evidence: []string{"aaaabbbbcccc"},
			Host: "evil.example", Port: 443, Suggest: "- evil.example",
			Job: &allowlists.Job{Repo: "corp/app", Workflow: "ci", RunID: "12", Job: "test"},
		},
		New: 3, Repeat: true,
	}
}

func TestASlackMessageSaysWhatAPersonNeeds(t *testing.T) {
	body, err := alerting.EncodeSlack("ddddeeeeffff", []alerting.SlackItem{anItem()}, someLinks)
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(checkSlack(t, body), "\n")
	for _, want := range []string{
		"Medium: destination refused, 7 times", "evil.example was refused", "Where", "pool build, client 10.20.0.7", "Job", "corp/app ci test 12",
		"How often", "7 times, 3 of them new", "When", "23 Nov 12:00:00 UTC", "denied-egress, group k3v9x2m4p7qa, not-in-allowlist, told before", "sallyport explain aaaabbbbcccc", "If this is meant, allow it", "- evil.example",
		"About denied-egress", "The event", "message ddddeeeeffff",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not in\n%s", want, all)
		}
	}
}

func TestEightGroupsFitOneMessage(t *testing.T) {
	item := anItem()
	for range 12 {
		item.Destinations = append(item.Destinations, strings.Repeat("𝕏", 300))
	}
	item.Summary = strings.Repeat("<!channel> ", 100)
	items := make([]alerting.SlackItem, 8)
	for i := range items {
		items[i] = item
	}
	body, err := alerting.EncodeSlack("ddddeeeeffff", items, someLinks)
	if err != nil {
		t.Fatal(err)
	}
	checkSlack(t, body)
}

func FuzzSlack(f *testing.F) {
	for _, text := range []string{
		"evil.example", "<!channel>", "<https://x.example|click>", "*b* _i_ ~s~ `c` :smile:", "a\x00b\x1b[31m\r\n\u2028\u202ex", "\xff\xfe", "",
		strings.Repeat("a", 5000), strings.Repeat("𝕏", 300), `"}],"blocks":[`, "@here", "&lt;",
	} {
		f.Add(text, text, text, 1, uint8(3), true)
		f.Add(text, "build", "- x", 1000000, uint8(2), false)
	}
	f.Fuzz(func(t *testing.T, host, pool, suggest string, count int, severity uint8, repeat bool) {
		item := anItem()
		item.Host, item.Summary, item.Pool, item.Suggest, item.Alert.Alert = host, host+" was refused", pool, suggest, pool
		item.Count, item.Severity, item.Repeat = count, alerting.Severity(severity), repeat
		item.Destinations, item.Evidence, item.Reason = []string{host, pool, "x"}, []string{suggest}, pool
		item.Job = &allowlists.Job{Repo: host, Workflow: pool, RunID: suggest}
		if suggest == "" {
			item.Evidence = nil
		}
		for _, items := range [][]alerting.SlackItem{{item}, {item, anItem(), item, item, item, item, item, item, item, item}} {
			body, err := alerting.EncodeSlack("ddddeeeeffff", items, someLinks)
			if err != nil {
				t.Fatal(err)
			}
			checkSlack(t, body)
		}
	})
}

func TestEachAlertHasATitle(t *testing.T) {
	for _, alert := range alerting.KnownAlerts() {
		if alerting.AlertTitle(alert) == "" {
			t.Errorf("%s has none in alertTitles (slackitem.go)", alert)
		}
	}
}

func TestSeveritiesDifferByColourAndWord(t *testing.T) {
	colours := map[string]string{}
	for _, severity := range []alerting.Severity{alerting.Info, alerting.Medium, alerting.High, alerting.Critical} {
		item := anItem()
		item.Severity = severity
		body, err := alerting.EncodeSlack("ddddeeeeffff", []alerting.SlackItem{item}, allowlists.Links{})
		if err != nil {
			t.Fatal(err)
		}
		texts := checkSlack(t, body)
		if !strings.Contains(strings.ToLower(texts[0]), severity.String()) {
			t.Errorf("the header of %s is %q", severity, texts[0])
		}
		var payload struct{ Attachments []struct{ Color string } }
		if err := json.Unmarshal(body, &payload); err != nil {
			t.Fatal(err)
		}
		colour := payload.Attachments[0].Color
		if other, taken := colours[colour]; taken {
			t.Errorf("%s has the colour of %s", severity, other)
		}
		colours[colour] = severity.String()
		if strings.Contains(string(body), `"link"`) {
			t.Error("there is a link, and no template for one")
		}
	}
}
