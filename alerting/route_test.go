package alerting_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/allowlists"
)

// TestTheRoutesOfTheDocumentsWork has those of docs/alerts.md: by pool and
// severity, by pool, by severity, and the rest, in that order.
func TestTheRoutesOfTheDocumentsWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alerts := allowlists.Alerts{GroupInterval: 5 * time.Minute, Slack: allowlists.Slack{
			WebhookURL: canary + "/ci", MinSeverity: "medium", Routes: []allowlists.SlackRoute{
				{Pools: []string{"deploy"}, MinSeverity: "high", WebhookURL: canary + "/oncall"},
				{Pools: []string{"deploy"}, MinSeverity: "info", WebhookURL: canary + "/release"},
				{MinSeverity: "critical", WebhookURL: canary + "/security"},
			},
		}}
		r, sent := runWithRoutes(t, alerts)
		deploy := inPool("deploy")
		r.Take(now(question("medium-deploy.example", deploy, client("10.0.0.1"))))
		r.Take(now(question("medium-build.example", client("10.0.0.1"))))
		r.Take(now(connect("203.0.113.1", 443, deploy, client("10.0.0.2")))) // high
		r.Take(now(connect("203.0.113.2", 443, client("10.0.0.2"))))
		for i, pool := range []string{"deploy", "build"} { // critical
			r.Take(now(question("medium-x.example", inPool(pool), client("10.0.0.3"))))
			r.Take(now(connect("203.0.113.2"+string(rune('1'+i)), 443, inPool(pool), client("10.0.0.3"))))
		}
		time.Sleep(20 * time.Second)
		r.stop()
		for text, place := range map[string]string{
			"medium-deploy.example": "/release", "medium-build.example": "/ci", "203.0.113.1:443": "/oncall", "203.0.113.2:443": "/ci",
			"203.0.113.21:443": "/oncall", "203.0.113.22:443": "/security",
		} {
			for to, all := range sent {
				if got := strings.Contains(all, text); got != (to == place) {
					t.Errorf("%s is at %s: %t", text, to, got)
				}
			}
			if sent[place] == "" {
				t.Errorf("nothing came to %s", place)
			}
		}
	})
}
