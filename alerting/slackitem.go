package alerting

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"sallyport/allowlists"
)

// alertTitles are the alerts in a few words, for people who see one for the
// first time.
var alertTitles = map[string]string{
	AlertDeniedEgress:     "destination refused",
	AlertDirectIP:         "address that no DNS answer gave",
	AlertDeniedThenDirect: "refused name, then an address tried",
	AlertSNIMismatch:      "another name inside the connection",
	AlertAddressMismatch:  "name at an address it never had",
	AlertMetadataAccess:   "cloud credentials wanted",
	AlertForeignResolver:  "another DNS resolver wanted",
	AlertRebinding:        "name with a private address",
	AlertFirstSeen:        "new destination",
	AlertPolicy:           "Sallyport needs attention",
	"scan":                "network scan",
	"dns-tunnel":          "data in DNS questions",
	"upload-volume":       "unusually much sent",
	"lookalike":           "looks like an allowed name",
	"resolved-unused":     "names asked and never used",
}

// alertTitle is an alert in a few words, or its name.
func alertTitle(alert string) string {
	if title := alertTitles[alert]; title != "" {
		return title
	}
	return knownAlert(alert)
}

// slackItem is one alert: what happened, where, how often, what to do. One
// among others has its title; else that is the header.
func slackItem(m *message, a *item, links allowlists.Links) slackAttachment {
	what := richSection{Type: "rich_text_section"}
	if len(m.Items) > 1 {
		state := a.Severity.String()
		if a.Closed != "" {
			state = "closed"
		}
		what.add(true, fmt.Sprintf("%s: %s", strings.ToUpper(state), alertTitle(a.Alert.Alert)))
		what.add(false, "\n")
	}
	what.add(false, slackClean(a.Summary))
	for _, fact := range slackFacts(a) {
		what.add(true, "\n"+fact[0]+"  ")
		what.add(false, slackClean(fact[1]))
	}
	body := slackRich{"rich_text", []any{what}}
	if len(a.Destinations) > 0 {
		body.Elements = append(body.Elements, slackDestinations(a))
	}
	body.Elements = append(body.Elements, slackAdvice(a)...)
	if section := slackLinks(a, links); len(section.Elements) > 0 {
		body.Elements = append(body.Elements, section)
	}
	notes := []string{knownAlert(a.Alert.Alert), "group " + a.ID}
	if a.Reason != "" {
		notes = append(notes, a.Reason)
	}
	if a.Repeat {
		notes = append(notes, "told before")
	}
	notes = append(notes, "message "+m.ID)
	return slackAttachment{
		Color:  slackLookOf(a.Closed, a.Severity).color,
		Blocks: []any{body, slackContext{"context", []plainText{{"plain_text", slackClean(strings.Join(notes, ", ")), false}}}},
	}
}

// add puts a text behind the others.
func (s *richSection) add(bold bool, text string) {
	element := richText{Type: "text", Text: text}
	if bold {
		element.Style = &richStyle{Bold: true}
	}
	s.Elements = append(s.Elements, element)
}

// slackFacts are where and how often, each with its label. The summary names the
// destination.
func slackFacts(a *item) [][2]string {
	where := poolName(a.Pool)
	if a.Client.IsValid() {
		where += ", client " + a.Client.String()
	}
	var facts [][2]string
	if a.Closed != "" {
		facts = append(facts, [2]string{"Closed", a.Closed})
	}
	facts = append(facts, [2]string{"Where", where})
	if job := jobText(a.Job); job != "" {
		facts = append(facts, [2]string{"Job", job})
	}
	return append(facts, [2]string{"How often", slackCount(a)}, [2]string{"When", slackSpan(a.First, a.Last)})
}

// slackCount says how often it happened, and what of it is new.
func slackCount(a *item) string {
	count := fmt.Sprintf("%d times", a.Count)
	if a.Count == 1 {
		count = "once"
	}
	if a.Repeat {
		count += fmt.Sprintf(", %d of them new", a.New)
	}
	return count
}

// slackSpan is a time, or from when to when, in UTC.
func slackSpan(first, last time.Time) string {
	first, last = first.UTC(), last.UTC()
	const day, clock = "2 Jan", "15:04:05"
	switch {
	case last.Sub(first) < time.Second:
		return last.Format(day + " " + clock + " UTC")
	case first.Format(day) == last.Format(day):
		return first.Format(day+" "+clock) + " to " + last.Format(clock+" UTC")
	default:
		return first.Format(day+" "+clock) + " to " + last.Format(day+" "+clock+" UTC")
	}
}

// slackDestinations lists those of a folded group.
func slackDestinations(a *item) richList {
	list := richList{Type: "rich_text_list", Style: "bullet"}
	for _, name := range a.Destinations[:min(len(a.Destinations), 2*maxAlertHosts)] {
		list.Elements = append(list.Elements, richSection{"rich_text_section", []richText{{Type: "text", Text: slackClean(name)}}})
	}
	return list
}

// slackAdvice is what to do next, to be copied: which command tells more, and
// the line that would allow it. One that is longer than slackText is left out
// rather than cut.
func slackAdvice(a *item) (elements []any) {
	advise := func(label, text string) {
		what := richSection{Type: "rich_text_section"}
		what.add(true, label)
		elements = append(elements, what, richSection{"rich_text_preformatted", []richText{{Type: "text", Text: slackClean(text)}}})
	}
	if id := lastEvidence(&a.Alert); id != "" {
		advise("See why", "sallyport explain "+slackClean(id))
	}
	if a.Suggest != "" && a.Closed == "" && utf8.RuneCountInString(a.Suggest) <= slackText/2 {
		advise("If this is meant, allow it", a.Suggest)
	}
	return elements
}

// slackLinks are the links that configuration gives templates for.
func slackLinks(a *item, links allowlists.Links) richSection {
	section := richSection{Type: "rich_text_section"}
	add := func(text, url string) {
		if url == "" {
			return
		}
		if len(section.Elements) > 0 {
			section.add(false, "  \u00b7  ")
		}
		section.Elements = append(section.Elements, richText{Type: "link", Text: text, URL: url})
	}
	add("About "+knownAlert(a.Alert.Alert), docsLink(links, &a.Alert))
	add("The event", eventLink(links, &a.Alert))
	return section
}
