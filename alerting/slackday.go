package alerting

import (
	"fmt"
	"slices"
	"strings"
)

// The bounds of a daily summary in Slack.
const (
	slackDayPools   = 10 // pools with a line of their own
	slackDayRefused = 10 // refused destinations
)

// slackDay makes the body of a daily summary.
func slackDay(m *message) slackPayload {
	d := m.Day
	refused, alerts := d.total(func(p *dayPool) int64 { return p.Refused }), d.total((*dayPool).alerts)
	color, mark := slackLooks[Info].color, slackClosed.mark
	if worst, ok := d.worst(); ok {
		look := slackLookOf("", worst)
		color, mark = look.color, look.mark
	}
	title := fmt.Sprintf("daily summary: %s, %s", plural(alerts, "alert"), plural(refused, "refusal"))
	body := slackRich{"rich_text", []any{slackDayPoolLines(d)}}
	list := func(label string, items []string) {
		if len(items) == 0 {
			return
		}
		head := richSection{Type: "rich_text_section"}
		head.add(true, label)
		lines := richList{Type: "rich_text_list", Style: "bullet"}
		for _, text := range items {
			lines.Elements = append(lines.Elements, richSection{"rich_text_section", []richText{{Type: "text", Text: slackClean(text)}}})
		}
		body.Elements = append(body.Elements, head, lines)
	}
	list("Alerts", slackDayKinds(d))
	list("Refused most", slackDayTop(d))
	list("New destinations", slackDayNew(d))
	list("Trouble", slackDayTrouble(d))
	note := fmt.Sprintf("%s, message %s", slackSpan(d.From, d.To), m.ID)
	if state := dayEnforcement[d.Enforcement]; state != "" {
		note = "enforcement " + state + ", " + note
	}
	return slackPayload{
		Text:   title,
		Blocks: []any{slackHeader{"header", plainText{"plain_text", mark + " " + capital(title), false}}},
		Attachments: []slackAttachment{{
			Color:  color,
			Blocks: []any{body, slackContext{"context", []plainText{{"plain_text", slackClean(note), false}}}},
		}},
	}
}

// slackDayPoolLines has a line for each pool, those with the most refusals first.
func slackDayPoolLines(d *day) richSection {
	section := richSection{Type: "rich_text_section"}
	names := d.sorted()
	for i, name := range names {
		if i == slackDayPools {
			section.add(false, fmt.Sprintf("and %s more\n", plural(int64(len(names)-i), "pool")))
			break
		}
		p := d.Pools[name]
		facts := append([]string{plural(p.Connections, "connection"), plural(p.Refused, "refusal")}, severityCounts(p.Alerts)...)
		if p.Unused > 0 {
			facts = append(facts, plural(int64(p.Unused), "name")+" asked and never used")
		}
		section.add(true, slackClean(capital(poolName(name)))+"  ")
		section.add(false, strings.Join(facts, ", ")+"\n")
	}
	if len(names) == 0 {
		section.add(false, "No connection and no refusal.")
	}
	return section
}

// severityCounts says how many there are of each severity, the highest first.
func severityCounts(counts map[Severity]int) (facts []string) {
	for s := Critical; ; s-- {
		if n := counts[s]; n > 0 {
			facts = append(facts, fmt.Sprintf("%d %s", n, s))
		}
		if s == Info {
			return facts
		}
	}
}

// slackDayKinds are the alerts that were opened.
func slackDayKinds(d *day) (lines []string) {
	for _, k := range d.kinds() {
		lines = append(lines, fmt.Sprintf("%s (%s), %s", alertTitle(k.alert), k.alert, strings.Join(severityCounts(k.counts), ", ")))
	}
	return lines
}

// slackDayTop are the destinations that were refused most.
func slackDayTop(d *day) (lines []string) {
	for _, top := range d.Refused.most(slackDayRefused) {
		times := plural(top.sure(), "time")
		if top.Over > 0 {
			times = "at least " + times
		}
		lines = append(lines, fmt.Sprintf("%s, %s, %s", times, poolName(top.pool), top.destination))
	}
	return lines
}

// slackDayNew are the destinations that were new.
func slackDayNew(d *day) []string {
	lines := slices.Clone(d.New)
	if d.NewMore > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", d.NewMore))
	}
	return lines
}

// slackDayTrouble are the system events that tell of something wrong.
func slackDayTrouble(d *day) (lines []string) {
	for _, event := range dayTrouble {
		if n := d.Trouble[event]; n > 0 {
			lines = append(lines, fmt.Sprintf("%s, %s", event, plural(int64(n), "time")))
		}
	}
	return lines
}

// plural is a number of things.
func plural(n int64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
