package alerting

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"

	"sallyport/allowlists"
)

// slackText is the most characters of one text from a job.
const slackText = 200

// slack posts messages to an incoming webhook.
type slack struct {
	endpoint
	links allowlists.Links
}

func newSlack(url string, links allowlists.Links, client doer) (*slack, error) {
	endpoint, err := newEndpoint(url, client)
	return &slack{endpoint, links}, err
}

func (s *slack) post(ctx context.Context, m *message) delivery {
	body, err := encodeSlack(m, s.links)
	if err != nil {
		return delivery{stop: true, cause: "the message cannot be written as JSON"}
	}
	return s.endpoint.post(ctx, body, nil)
}

// encodeSlack makes the body of a message: Block Kit, within Slack's limits. A
// header says what it is about; each alert is an attachment, as only those have
// a colour. Text from a job stands in plain_text and rich_text elements only,
// neither of which Slack reads as markup.
func encodeSlack(m *message, links allowlists.Links) ([]byte, error) {
	if m.Day != nil {
		return json.Marshal(slackDay(m))
	}
	payload := slackPayload{Text: slackTitle(m), Blocks: []any{slackHeader{"header", plainText{"plain_text", slackHeadline(m), false}}}}
	items := m.Items[:min(len(m.Items), slackMost)]
	for i := range items {
		payload.Attachments = append(payload.Attachments, slackItem(m, &items[i], links))
	}
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
	return fmt.Sprintf("%d alerts: %s", len(m.Items), bySeverity(m))
}

// bySeverity counts the alerts of a message: "1 critical, 2 high".
func bySeverity(m *message) string {
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
			return strings.Join(parts, ", ")
		}
	}
}

// slackHeadline is what the header says: how bad, and what.
func slackHeadline(m *message) string {
	a := &m.Items[0]
	mark := slackLookOf(a.Closed, m.severity()).mark
	switch counts := bySeverity(m); {
	case a.Closed != "" && len(m.Items) > 1:
		return fmt.Sprintf("%s %d alerts closed", mark, len(m.Items))
	case a.Closed != "":
		return mark + " Closed: " + alertTitle(a.Alert.Alert)
	case len(m.Items) > 1 && strings.Contains(counts, ","):
		return fmt.Sprintf("%s %d alerts: %s", mark, len(m.Items), counts)
	case len(m.Items) > 1:
		return mark + " " + counts + " alerts"
	case a.Count > 1:
		return fmt.Sprintf("%s %s: %s, %d times", mark, capital(a.Severity.String()), alertTitle(a.Alert.Alert), a.Count)
	default:
		return fmt.Sprintf("%s %s: %s", mark, capital(a.Severity.String()), alertTitle(a.Alert.Alert))
	}
}

// A slackLook is a mark and a colour, "#rrggbb".
type slackLook struct{ mark, color string }

// slackLooks are those of each severity, and slackClosed that of an alert that
// is over. A person who does not tell the colours apart has the word beside them.
var (
	slackLooks = [...]slackLook{
		Info: {"\u26aa", "#8d99ae"}, Medium: {"\U0001f7e1", "#e0a800"}, High: {"\U0001f7e0", "#e8590c"}, Critical: {"\U0001f534", "#c1121f"},
	}
	slackClosed = slackLook{"\u2705", "#2b8a3e"}
)

// slackLookOf is the look of an alert of that severity; closed is its Closed.
func slackLookOf(closed string, severity Severity) slackLook {
	if closed != "" {
		return slackClosed
	}
	return slackLooks[min(severity, Critical)]
}

// capital begins a word of ours with a capital.
func capital(word string) string { return strings.ToUpper(word[:1]) + word[1:] }

// knownAlert is the name of an alert that exists.
func knownAlert(name string) string {
	for _, known := range alertKinds {
		if known == name {
			return known
		}
	}
	return "alert"
}

// slackClean makes text from a job fit to be shown: at most slackText characters,
// and one at least, as Slack refuses the whole message for a text without any.
func slackClean(text string) string {
	if text == "" {
		return "(nothing)"
	}
	return cleanText(text, slackText)
}

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
