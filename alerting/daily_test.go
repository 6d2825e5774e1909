package alerting_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/alerting"
	"sallyport/allowlists"
)

// toDaily has the one sink send a summary at nine, UTC.
func toDaily() allowlists.Alerts {
	alerts := toSlack()
	alerts.Slack.Daily = allowlists.TimeOfDay{Set: true, Since: 9 * time.Hour}
	return alerts
}

// summaries are the texts of the daily summaries among Slack's messages.
func (r *running) summaries(t *testing.T) (texts []string, at []time.Time) {
	t.Helper()
	times, bodies := r.got()
	for i, body := range bodies {
		if words := strings.Join(checkSlack(t, []byte(body)), "\n"); strings.Contains(words, "Daily summary") {
			texts, at = append(texts, words), append(at, times[i])
		}
	}
	return texts, at
}

// allowedConn is a tunnel that opens.
func allowedConn(pool string) alerting.Event {
	return alerting.Event{Kind: alerting.KindConn, Via: "connect", Pool: pool, Host: "github.com", Port: 443, Phase: alerting.PhaseOpen, Verdict: allowlists.Allow, Reason: allowlists.Allowed}
}

// TestDailySummary tells of a day, and of one on which nothing happened.
func TestDailySummary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // at midnight, UTC
		r := runCorrelator(t, alerting.CorrelatorSetup{Alerts: toDaily()}, nil)
		for range 3 {
			r.Take(now(connect("evil.example", 443)))
		}
		r.Take(now(question("other.example", inPool("deploy"))))
		r.Take(now(allowedConn("deploy")))
		r.Take(now(allowedConn("deploy")))
		r.Take(now(system(alerting.SystemEnforcement, "in-place")))
		for _, state := range []string{"failing", "recovered"} { // one trouble, not two
			r.Take(now(system(alerting.SystemSinkFailing, state)))
		}
		time.Sleep(9*time.Hour - time.Minute)
		if texts, _ := r.summaries(t); len(texts) > 0 {
			t.Fatalf("it came before its time: %q", texts)
		}
		time.Sleep(2 * time.Minute)
		texts, _ := r.summaries(t)
		if len(texts) != 1 {
			t.Fatalf("%d summaries", len(texts))
		}
		for _, want := range []string{
			"Daily summary: 2 alerts, 4 refusals", "Pool build", "0 connections, 3 refusals, 1 medium", "Pool deploy", "2 connections, 1 refusal, 1 medium",
			"3 times, pool build, evil.example", "1 time, pool deploy, other.example", "destination refused (denied-egress), 2 medium",
			"sink-failing, 1 time", "enforcement in place, ",
		} {
			if !strings.Contains(texts[0], want) {
				t.Errorf("the summary lacks %q:\n%s", want, texts[0])
			}
		}
		time.Sleep(24 * time.Hour)
		texts, at := r.summaries(t)
		if len(texts) != 2 || at[1].Sub(at[0]) != 24*time.Hour {
			t.Fatalf("the second: %q at %v", texts, at)
		}
		for _, want := range []string{"\u2705 Daily summary: 0 alerts, 0 refusals", "No connection and no refusal.", "enforcement in place, "} {
			if !strings.Contains(texts[1], want) {
				t.Errorf("the quiet day lacks %q:\n%s", want, texts[1])
			}
		}
		r.stop()
	})
}

// system is an event of ours that tells of a state.
func system(name, state string) alerting.Event {
	return alerting.Event{Kind: alerting.KindSystem, Event: name, Details: map[string]any{"state": state}}
}

// TestDailySummarySaysFirstWhatIsWorst orders alerts by severity, and shows the
// highest in the mark; a destination that several pools saw first is one.
func TestDailySummarySaysFirstWhatIsWorst(t *testing.T) {
	for name, c := range map[string]struct {
		found func(found func(pool, alert, host string, severity alerting.Severity, times int))
		count []alerting.Event
		want  []string
	}{
		"critical": {
			func(found func(string, string, string, alerting.Severity, int)) {
				found("build", alerting.AlertDeniedEgress, "evil.example", alerting.Medium, 9)
				found("build", alerting.AlertScan, "", alerting.Medium, 2)
				found("build", alerting.AlertScan, "", alerting.Critical, 1)
				found("build", alerting.AlertFirstSeen, "new.example", alerting.Medium, 2)
				found("deploy", alerting.AlertFirstSeen, "new.example", alerting.Medium, 1)
			}, nil,
			[]string{"\U0001f534 Daily", "Alerts\nnetwork scan (scan), 1 critical, 2 medium\ndestination refused (denied-egress), 9 medium", "New destinations\nnew.example\n1 Jan"},
		},
		"enforcement is gone": {nil, []alerting.Event{system(alerting.SystemEnforcement, "in-place"), system(alerting.SystemEnforcement, "not-in-place"), system(alerting.SystemEnforcement, "<!channel>")},
			[]string{"\U0001f7e0 Daily", "enforcement not in place, "}},
		"only trouble": {nil, []alerting.Event{system(alerting.SystemBookFailed, "failing")}, []string{"\U0001f7e1 Daily", "book-failed, 1 time"}},
		"nothing":      {nil, []alerting.Event{system(alerting.SystemBookFailed, "recovered")}, []string{"\u2705 Daily"}},
	} {
		t.Run(name, func(t *testing.T) {
			body, err := alerting.EncodeSlackDay("ddddeeeeffff", time.Unix(0, 0), time.Unix(86400, 0), func(count func(*alerting.Event), found func(string, string, string, alerting.Severity, int)) {
				for i := range c.count {
					count(&c.count[i])
				}
				if c.found != nil {
					c.found(found)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			words := strings.Join(checkSlack(t, body), "\n")
			for _, want := range c.want {
				if !strings.Contains(words, want) {
					t.Errorf("the summary lacks %q:\n%s", want, words)
				}
			}
		})
	}
}

// TestDailySummaryAfterARestart stops at seven and comes back in the afternoon,
// or has its receiver fail over that time.
func TestDailySummaryAfterARestart(t *testing.T) {
	for what, answer := range map[string]func() (*http.Response, error){
		"down ourselves":   nil,
		"429 of Slack":     func() (*http.Response, error) { return reply(429), nil },
		"500 of Slack":     func() (*http.Response, error) { return reply(500), nil },
		"stopped by Slack": func() (*http.Response, error) { return reply(404), nil },
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &alerting.MemoryStore{}
				quiet := toDaily()
				quiet.Slack.MinSeverity = "critical" // nothing but the summary
				failing := func(int) (*http.Response, error) {
					if answer != nil {
						return answer()
					}
					return nil, nil
				}
				before := runCorrelator(t, alerting.CorrelatorSetup{Alerts: quiet, Store: store}, failing)
				before.Take(now(connect("evil.example", 443)))
				if answer == nil {
					time.Sleep(7 * time.Hour)
				} else {
					time.Sleep(10 * time.Hour)
				}
				before.stop()
				if answer == nil {
					time.Sleep(8 * time.Hour)
				}
				after := runCorrelator(t, alerting.CorrelatorSetup{Alerts: quiet, Store: store}, nil)
				time.Sleep(time.Minute)
				texts, _ := after.summaries(t)
				if len(texts) != 1 || !strings.Contains(texts[0], "1 time, pool build, evil.example") {
					t.Errorf("%d summaries: %q", len(texts), texts)
				}
				after.stop()
			})
		})
	}
}

// TestDailySummaryIsBounded has a job make up names and pools, beside a
// destination that is refused often.
func TestDailySummaryIsBounded(t *testing.T) {
	body, err := alerting.EncodeSlackDay("ddddeeeeffff", time.Unix(0, 0), time.Unix(86400, 0), func(count func(*alerting.Event), found func(string, string, string, alerting.Severity, int)) {
		for i := range 100_000 {
			e := connect(fmt.Sprintf("n%d-%s.example", i, strings.Repeat("<b>*x*", 50)), 443)
			e.Pool = fmt.Sprintf("pool%d", i%1000)
			if i%250 == 0 {
				e = connect("often.example", 443)
			}
			count(&e)
		}
		late := connect("late.example", 443) // whose place counted others before
		for range 50 {
			count(&late)
		}
		for i := range 1000 {
			found("build", alerting.AlertFirstSeen, fmt.Sprintf("<!channel> *bold* %d", i), alerting.Medium, 1)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Join(checkSlack(t, body), "\n")
	if len(body) > 16<<10 || !json.Valid(body) {
		t.Errorf("a summary of %d bytes", len(body))
	}
	for _, want := range []string{"100050 refusals", "Refused most\n400 times, pool build, often.example\nat least 50 times, pool build, late.example\nat least 1 time, pool ", "and 990 more"} {
		if !strings.Contains(words, want) {
			t.Errorf("the summary lacks %q:\n%s", want, words)
		}
	}
}
