package alerting

import (
	"strings"

	"sallyport/allowlists"
)

// docsLink is where an alert of that kind is explained; "" if links are not
// configured. Nothing of a job is in it.
func docsLink(links allowlists.Links, a *Alert) string {
	if links.Docs == "" {
		return ""
	}
	return strings.ReplaceAll(links.Docs, "{alert}", knownAlert(a.Alert))
}

// eventLink is where the latest event of an alert is looked up; "" if links are
// not configured or there is no event. Nothing of a job is in it but an id of
// ours.
func eventLink(links allowlists.Links, a *Alert) string {
	id := lastEvidence(a)
	if links.Event == "" || !isID(id) {
		return ""
	}
	return strings.ReplaceAll(links.Event, "{id}", id)
}

// lastEvidence is the id of the latest event; "" if there is none.
func lastEvidence(a *Alert) string {
	if len(a.Evidence) == 0 {
		return ""
	}
	return a.Evidence[len(a.Evidence)-1]
}

// isID reports whether text is an id as we make them: letters and digits, or a
// dash.
func isID(text string) bool {
	return text != "" && len(text) <= 64 && strings.Trim(text, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// alertDestination is the destination of an alert; "" if it has none, or many.
func alertDestination(a *Alert) string {
	if a.DestinationCount > 0 || a.Host == "" && !a.IP.IsValid() {
		return ""
	}
	return destination(a.Host, a.IP, a.Port)
}

// jobText names the job of an alert; "" if it is not known.
func jobText(job *allowlists.Job) string {
	if job == nil {
		return ""
	}
	var parts []string
	for _, part := range []string{job.Repo, job.Workflow, job.Job, job.RunID} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, " ")
}
