package alerting

import (
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"

	"sallyport/allowlists"
)

// The times and bounds of the Alertmanager sink.
const (
	alertmanagerMost = 256             // groups in a post
	alertmanagerEnd  = 5 * time.Minute // an alert ends by itself this long after it was last said
	renewEvery       = time.Minute     // an alert is said again this often while its group is open
)

// alertmanager posts alerts to the v2 API of Prometheus' Alertmanager, which
// knows an alert by its labels. It stays one alert as long as we say it again
// before its end.
type alertmanager struct {
	endpoint
	token string // "": none
	links allowlists.Links
}

// A postedAlert is an alert as that API takes it (PostableAlert in its
// openapi.yaml). Alertmanager's own type would bring the whole of OpenAPI into
// the program; a test holds ours against it.
type postedAlert struct {
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	StartsAt     time.Time         `json:"startsAt"`
	EndsAt       time.Time         `json:"endsAt"`
	GeneratorURL string            `json:"generatorURL,omitempty"`
}

func newAlertmanager(config allowlists.Alertmanager, links allowlists.Links, client doer) (*alertmanager, error) {
	u, err := url.Parse(config.URL)
	if err != nil {
		return nil, errors.New("the URL cannot be read; it is not shown as it is a secret")
	}
	if !strings.HasSuffix(u.Path, "/api/v2/alerts") {
		u = u.JoinPath("api", "v2", "alerts")
	}
	endpoint, err := newEndpoint(u.String(), client)
	return &alertmanager{endpoint, config.Token, links}, err
}

func (a *alertmanager) post(ctx context.Context, m *message) delivery {
	body, err := json.Marshal(a.alerts(m, time.Now()))
	if err != nil {
		return delivery{stop: true, cause: "the message cannot be written as JSON"}
	}
	headers := map[string]string{}
	if a.token != "" {
		headers["Authorization"] = "Bearer " + a.token
	}
	return a.endpoint.post(ctx, body, headers)
}

// alerts are the alerts of a message as they stand now, each once.
func (a *alertmanager) alerts(m *message, now time.Time) []postedAlert {
	alerts := make([]postedAlert, 0, len(m.Items))
	said := make(map[string]bool)
	for i := range m.Items {
		it := &m.Items[i]
		if cell := it.cell(); !said[cell] {
			said[cell] = true
			alerts = append(alerts, a.alert(it, now))
		}
	}
	return alerts
}

// alert is one alert. Its labels are few and stable: never a client, and a host
// only where a group has one.
func (a *alertmanager) alert(it *item, now time.Time) postedAlert {
	ends := now.Add(alertmanagerEnd)
	if it.Ended {
		ends = now
	}
	return postedAlert{
		StartsAt: it.First.UTC().Truncate(time.Millisecond), EndsAt: ends.UTC().Truncate(time.Millisecond),
		Annotations: nonempty(map[string]string{
			"summary": it.Summary, "count": strconv.Itoa(it.Count), "explain": explainCommand(&it.Alert),
			"suggest": it.Suggest, "job": jobText(it.Job), "docs": docsLink(a.links, &it.Alert),
		}),
		GeneratorURL: eventLink(a.links, &it.Alert),
		Labels: nonempty(map[string]string{
			"alertname": knownAlert(it.Alert.Alert), "pool": it.Pool, "host": labelHost(&it.Alert), "severity": it.Severity.String(),
		}),
	}
}

// labelHost is the host label of an alert: a host or an address, without the
// port; "" for a folded group and a scan, which have neither.
func labelHost(a *Alert) string {
	switch {
	case a.Host != "":
		return a.Host
	case a.IP.IsValid():
		return a.IP.String()
	default:
		return ""
	}
}

// cell is what an alert is to Alertmanager: its labels. Groups of one cell are
// one alert there.
func (a *Alert) cell() string {
	return strings.Join([]string{a.Alert, a.Pool, labelHost(a), a.Severity.String()}, "\x00")
}

// explainCommand is the command that tells more about an alert; "" if there is none.
func explainCommand(a *Alert) string {
	if id := lastEvidence(a); isID(id) {
		return "sallyport explain " + id
	}
	return ""
}

// nonempty is a label set without empty values, and with text from a job made
// harmless: receivers' templates may read markup in it.
func nonempty(set map[string]string) map[string]string {
	labels := make(map[string]string, len(set))
	for key, value := range set {
		if value != "" {
			labels[key] = unmarked(value)
		}
	}
	return labels
}

// unmarked is text without the characters by which Slack's markup, HTML and
// Markdown begin anything that links or calls somebody, and without what
// slackClean takes out.
func unmarked(text string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune("<>&[]@`", r) {
			return '?'
		}
		return r
	}, cleanText(text, maxAlertText))
}
