package webui

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"sallyport/alerting"
	"sallyport/allowlists"
)

// maxAlerts is how many alerts are shown.
const maxAlerts = 200

// An alertsPage is the list of open alerts.
type alertsPage struct {
	Alerts []alerting.Alert
	More   int
}

// alerts shows the open alerts.
func (p *Pages) alerts(w http.ResponseWriter, r *http.Request) {
	list, more := p.config.Events.OpenAlerts(maxAlerts)
	p.show(w, r, http.StatusOK, "alerts", "Alerts", alertsPage{list, more})
}

// A decisionPage is the story of one id.
type decisionPage struct {
	ID      string
	Verdict string
	Word    string
	What    string
	Pool    string
	Reason  string
	Rule    string
	Advice  advice
	Parts   []part
	Alerts  []alerting.Alert // that have it among their evidence
}

// A part of a story is one event.
type part struct {
	Title string
	Link  string // id of another decision that it is of; "" if it is of this one
	Facts []fact
	JSON  string // its line in the log
}

// A fact is a name and a value.
type fact struct{ Name, Value string }

// decision shows what is remembered of an id: the question, the connection, the
// rule, and the alerts about it.
func (p *Pages) decision(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	events, ok := p.config.Events.Decision(id)
	if !ok {
		text := "The daemon remembers the last 10,000 decisions and alerts, and this is none of them. Its log may have it."
		if allowlists.IsID(id) {
			text += " Look there with: sallyport explain --events FILE " + id
		}
		p.wrong(w, r, http.StatusNotFound, text)
		return
	}
	last := &events[len(events)-1]
	page := decisionPage{ID: id, What: clipped(destinationOf(last)), Pool: last.Pool}
	if last.Kind == alerting.KindAlert {
		page.What, page.Advice = last.Alert, advice{Line: last.Suggest}
		for _, of := range last.Evidence {
			page.add(p, of)
		}
	} else {
		page.Verdict = verdictOf(last)
		page.Word, page.Reason, page.Rule, page.Advice = verdictWords[page.Verdict], last.Cause().String(), last.Rule, p.adviceFor(last)
	}
	if last.DNSID != "" {
		page.add(p, last.DNSID)
	}
	for i := range events {
		page.Parts = append(page.Parts, partOf(&events[i], ""))
	}
	all, _ := p.config.Events.OpenAlerts(1 << 20)
	for _, a := range all {
		if slices.Contains(a.Evidence, id) {
			page.Alerts = append(page.Alerts, a)
		}
	}
	p.show(w, r, http.StatusOK, "decision", "Decision "+id, page)
}

// add adds the verdict of another id, if it is remembered.
func (d *decisionPage) add(p *Pages, id string) {
	if events, ok := p.config.Events.Decision(id); ok {
		d.Parts = append(d.Parts, partOf(&events[0], id))
	}
}

// partOf is an event for a person.
func partOf(e *alerting.Event, link string) part {
	out := part{Title: titleOf(e), Link: link}
	add := func(name, value string) {
		if value != "" {
			out.Facts = append(out.Facts, fact{name, clipped(value)})
		}
	}
	add("time", e.Time.Format("2006-01-02 15:04:05.000000 UTC"))
	if e.Kind == alerting.KindAlert {
		add("severity", e.Severity)
		add("summary", e.Summary)
	} else {
		add("asked for", strings.TrimSpace(destinationOf(e)+" "+e.Type))
		add("verdict", verdictWords[verdictOf(e)]+", "+e.Cause().String())
		add("rule", e.Rule)
	}
	add("client", addrText(e.Client))
	add("pool", e.Pool)
	if e.Kind != alerting.KindAlert {
		add("address", addrText(e.IP))
	}
	add("server name", e.SNI)
	add("answer", strings.Join(answerTexts(e), ", "))
	add("aliases", strings.Join(e.CNAMEs, ", "))
	add("names of the address", strings.Join(e.Names, ", "))
	if e.Kind == alerting.KindConn {
		add("state", stateOf(e))
	}
	if e.Job != nil {
		add("job", strings.TrimSpace(strings.Join([]string{e.Job.Repo, e.Job.Workflow, e.Job.Job, e.Job.RunID}, " ")))
	}
	add("error", e.Error)
	if line, err := json.Marshal(e); err == nil {
		out.JSON = string(line)
	}
	return out
}

// answerTexts are the addresses that the client was given.
func answerTexts(e *alerting.Event) []string {
	texts := make([]string, len(e.Answers))
	for i, addr := range e.Answers {
		texts[i] = addr.String()
	}
	return texts
}

// titleOf says what an event is.
func titleOf(e *alerting.Event) string {
	switch {
	case e.Kind == alerting.KindDNS && e.By == alerting.ByProxy:
		return "Question, asked by the proxy for the client"
	case e.Kind == alerting.KindDNS:
		return "Question"
	case e.Kind == alerting.KindAlert:
		return "Alert " + e.Alert
	}
	switch e.Phase {
	case alerting.PhaseOpen:
		return "Connection, opened"
	case alerting.PhaseRefused:
		return "Connection, refused"
	case alerting.PhaseProgress:
		return "Connection, still open"
	default:
		return "Connection, closed"
	}
}
