package alerting

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// slackText is the most characters of one text from a job.
const slackText = 200

// slack posts messages to an incoming webhook.
type slack struct{ endpoint }

func newSlack(url string, client doer) (*slack, error) {
	endpoint, err := newEndpoint(url, client)
	return &slack{endpoint}, err
}

func (s *slack) post(ctx context.Context, m *message) delivery {
	body, err := encodeSlack(m)
	if err != nil {
		return delivery{stop: true, cause: "the message cannot be written as JSON"}
	}
	return s.endpoint.post(ctx, body, nil)
}

// encodeSlack makes the body of a message: Block Kit, within Slack's limits.
// Text from a job stands in plain_text and rich_text elements only, neither of
// which Slack reads as markup.
func encodeSlack(m *message) ([]byte, error) {
	payload := slackPayload{Text: slackTitle(m), Blocks: []any{slackHeader{"header", plainText{"plain_text", slackTitle(m), false}}}}
	for i := range m.Items[:min(len(m.Items), slackMost)] {
		payload.Blocks = append(payload.Blocks, slackItem(&m.Items[i])...)
	}
	payload.Blocks = append(payload.Blocks, slackContext{"context", []plainText{{"plain_text", "Sallyport, message " + m.ID, false}}})
	return json.Marshal(payload)
}

// slackTitle counts the alerts of a message by severity. It stands where Slack
// reads markup (the notification text), so nothing of a job is in it: only
// words of ours and numbers.
func slackTitle(m *message) string {
	if len(m.Items) > 1 && m.Items[0].Closed != "" {
		return fmt.Sprintf("%d alerts closed", len(m.Items))
	}
	if len(m.Items) == 1 {
		a := &m.Items[0]
		if a.Closed != "" {
			return "closed: " + knownAlert(a.Alert.Alert)
		}
		title := fmt.Sprintf("%s: %s", a.Severity, knownAlert(a.Alert.Alert))
		if a.Count > 1 {
			title += fmt.Sprintf(", %d times", a.Count)
		}
		if a.Repeat {
			title += " (again)"
		}
		return title
	}
	counts := make(map[Severity]int)
	for i := range m.Items {
		counts[m.Items[i].Severity]++
	}
	var parts []string
	for s := Critical; ; s-- {
		if counts[s] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[s], s))
		}
		if s == Info {
			break
		}
	}
	return fmt.Sprintf("%d alerts: %s", len(m.Items), strings.Join(parts, ", "))
}

// knownAlert is the name of an alert that exists.
func knownAlert(name string) string {
	for _, known := range alertKinds {
		if known == name {
			return known
		}
	}
	return "alert"
}

// slackItem is one alert: what happened, the facts, what to do.
func slackItem(a *item) []any {
	state := a.Severity.String()
	if a.Closed != "" {
		state = "closed"
	}
	what := richSection{"rich_text_section", []richText{
		{"text", fmt.Sprintf("%s  %s", strings.ToUpper(state), knownAlert(a.Alert.Alert)), &richStyle{Bold: true}},
		{"text", "\n", nil},
		{"text", slackClean(a.Summary), nil},
	}}
	if a.Closed != "" {
		what.Elements = append(what.Elements, richText{"text", "\nclosed: " + slackClean(a.Closed), nil})
	}
	blocks := []any{
		slackDivider{"divider"},
		slackRich{"rich_text", []any{what}},
		slackSection{"section", slackFields(a)},
	}
	if len(a.Destinations) > 0 {
		list := richList{Type: "rich_text_list", Style: "bullet"}
		for _, name := range a.Destinations[:min(len(a.Destinations), 2*maxAlertHosts)] {
			list.Elements = append(list.Elements, richSection{"rich_text_section", []richText{{"text", slackClean(name), nil}}})
		}
		blocks = append(blocks, slackRich{"rich_text", []any{list}})
	}
	if advice := slackAdvice(a); advice != "" {
		blocks = append(blocks, slackRich{"rich_text", []any{richSection{"rich_text_preformatted", []richText{{"text", advice, nil}}}}})
	}
	return blocks
}

// slackFields are the facts of an alert, at most ten.
func slackFields(a *item) []plainText {
	pool := a.Pool
	if pool == "" {
		pool = "none"
	}
	rows := [][2]string{{"Pool", pool}, {"Severity", a.Severity.String()}}
	if a.Client.IsValid() {
		rows = append(rows, [2]string{"Client", a.Client.String()})
	}
	if a.Host != "" || a.IP.IsValid() {
		rows = append(rows, [2]string{"Host", destination(a.Host, a.IP, a.Port)})
	}
	if a.Reason != "" {
		rows = append(rows, [2]string{"Reason", a.Reason})
	}
	count := strconv.Itoa(a.Count)
	if a.Repeat {
		count += fmt.Sprintf(", %d new since the last message", a.New)
	}
	rows = append(rows, [2]string{"Count", count}, [2]string{"First", slackTime(a.First)}, [2]string{"Last", slackTime(a.Last)})
	if a.Job != nil && a.Job.Repo != "" {
		rows = append(rows, [2]string{"Job", strings.Join([]string{a.Job.Repo, a.Job.Workflow, a.Job.Job, a.Job.RunID}, " ")})
	}
	group := a.ID
	if a.Repeat {
		group += ", told before"
	}
	rows = append(rows, [2]string{"Group", group})
	fields := make([]plainText, 0, len(rows))
	for _, row := range rows {
		fields = append(fields, plainText{"plain_text", slackClean(row[0] + ": " + row[1]), false})
	}
	return fields
}

// slackAdvice is what to do next, to be copied: which command tells more, and
// the line that would allow it. The id and the line are within slackText, and
// longer ones are left out rather than cut.
func slackAdvice(a *item) string {
	var lines []string
	if n := len(a.Evidence); n > 0 {
		lines = append(lines, "sallyport explain "+slackClean(a.Evidence[n-1]))
	}
	if a.Suggest != "" && utf8.RuneCountInString(a.Suggest) <= slackText-60 {
		lines = append(lines, "allow: "+slackClean(a.Suggest))
	}
	text, _ := cutRunes(strings.Join(lines, "\n"), slackText)
	return text
}

func slackTime(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// slackClean makes text from a job fit to be shown: at most slackText characters.
func slackClean(text string) string { return cleanText(text, slackText) }

// cleanText makes text from a job fit to be shown: at most limit characters,
// and what no reader can see, or what changes how the rest is shown (controls,
// bidirectional marks, unusual spaces), replaced.
func cleanText(text string, limit int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	text = strings.Map(func(r rune) rune {
		if r != ' ' && !unicode.IsPrint(r) {
			return '\uFFFD'
		}
		return r
	}, text)
	text, wasCut := cutRunes(text, limit)
	if wasCut {
		text, _ = cutRunes(text, limit-1)
		text += cutMark
	}
	return text
}

// cutRunes shortens text to at most limit characters and says whether it did.
// Slack counts UTF-16 units in places; one beyond the basic plane counts as two.
func cutRunes(text string, limit int) (string, bool) {
	units := 0
	for i, r := range text {
		units++
		if r > 0xffff {
			units++
		}
		if units > limit {
			return text[:i], true
		}
	}
	return text, false
}
