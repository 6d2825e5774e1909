package alerting_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-openapi/strfmt"
	"github.com/prometheus/alertmanager/api/v2/models"

	"sallyport/alerting"
	"sallyport/allowlists"
)

// toAlertmanager is a configuration with that one sink.
func toAlertmanager(url string) allowlists.Alerts {
	return allowlists.Alerts{
		GroupInterval: 5 * time.Minute, Alertmanager: allowlists.Alertmanager{URL: url, Token: "token-canary"},
		Links: allowlists.Links{Event: "https://sallyport.corp.example/events/{id}", Docs: "https://wiki.corp.example/alerts#{alert}"},
	}
}

// A posting is an alert as Alertmanager takes it.
type posting struct {
	Labels, Annotations map[string]string
	StartsAt, EndsAt    time.Time
	GeneratorURL        string
}

func readPostings(t *testing.T, body string) []posting {
	t.Helper()
	holdAgainstTheirs(t, body)
	var all []posting
	if err := json.Unmarshal([]byte(body), &all); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	return all
}

// holdAgainstTheirs reads alerts with Alertmanager's own type, which must take
// them and know every key.
func holdAgainstTheirs(t *testing.T, body string) {
	t.Helper()
	var theirs models.PostableAlerts
	if err := errors.Join(json.Unmarshal([]byte(body), &theirs), theirs.Validate(strfmt.Default)); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	again, err := json.Marshal(theirs)
	if err != nil {
		t.Fatal(err)
	}
	var sent, kept []map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal([]byte(body), &sent), json.Unmarshal(again, &kept)); err != nil {
		t.Fatal(err)
	}
	for i := range sent {
		if ours, known := slices.Sorted(maps.Keys(sent[i])), slices.Sorted(maps.Keys(kept[i])); !slices.Equal(ours, known) {
			t.Errorf("of the keys %q Alertmanager knows %q", ours, known)
		}
	}
}

func TestAnAlertHasFewStableLabels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var path, token string
		s := &stand{}
		r := runCorrelator(t, alerting.CorrelatorSetup{Alerts: toAlertmanager(canary), Send: func(q *http.Request) (*http.Response, error) {
			path, token = q.URL.Path, q.Header.Get("Authorization")
			return s.send(q)
		}}, nil)
		defer r.stop()
		job := func(e *alerting.Event) { e.Job = &allowlists.Job{Repo: "corp/app", Workflow: "ci", RunID: "12"} }
		r.Take(now(connect("evil.example", 443, job)))
		time.Sleep(2 * time.Second)
		_, bodies := s.got()
		if len(bodies) != 1 {
			t.Fatalf("%d posts", len(bodies))
		}
		if !strings.HasSuffix(path, "SeCrEtCaNaRy/api/v2/alerts") || token != "Bearer token-canary" {
			t.Errorf("posted to %s with %q", path, token)
		}
		a := readPostings(t, bodies[0])[0]
		if want := "map[alertname:denied-egress host:evil.example pool:build severity:medium]"; fmt.Sprint(a.Labels) != want {
			t.Errorf("labels %v, want %s", a.Labels, want)
		}
		if a.Annotations["count"] != "1" || a.Annotations["suggest"] != "- evil.example" || a.Annotations["job"] != "corp/app ci 12" ||
			!strings.HasPrefix(a.Annotations["explain"], "sallyport explain ") || !strings.Contains(a.Annotations["summary"], "evil.example") ||
			a.Annotations["docs"] != "https://wiki.corp.example/alerts#denied-egress" {
			t.Errorf("annotations %v", a.Annotations)
		}
		if id := strings.TrimPrefix(a.Annotations["explain"], "sallyport explain "); a.GeneratorURL != "https://sallyport.corp.example/events/"+id {
			t.Errorf("generatorURL %s", a.GeneratorURL)
		}
		if left := time.Until(a.EndsAt); left < 4*time.Minute || left > alerting.AlertmanagerEnd {
			t.Errorf("it ends in %s", left)
		}
	})
}

func TestAnOpenAlertIsSaidAgainAndItsEndOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runCorrelator(t, alerting.CorrelatorSetup{Alerts: toAlertmanager(canary)}, nil)
		defer r.stop()
		r.Take(now(connect("evil.example", 443)))
		time.Sleep(45 * time.Minute)
		at, bodies := r.got()
		var ended []int
		for i, body := range bodies {
			if i > 0 && at[i].Sub(at[i-1]) > alerting.RenewEvery+10*time.Second {
				t.Errorf("nothing was said for %s", at[i].Sub(at[i-1]))
			}
			for _, a := range readPostings(t, body) {
				if !a.EndsAt.After(at[i]) {
					ended = append(ended, i)
				}
			}
		}
		if len(bodies) < 30 || len(bodies) > 34 {
			t.Errorf("%d posts in the 31 minutes that the group was open", len(bodies))
		}
		if !slices.Equal(ended, []int{len(bodies) - 1}) {
			t.Errorf("of %d posts these say that it has ended: %v", len(bodies), ended)
		}
	})
}

// TestAnAlertEndsWithTheLastOfItsGroups: of two groups with the same labels one
// closes, and the alert stands.
func TestAnAlertEndsWithTheLastOfItsGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runCorrelator(t, alerting.CorrelatorSetup{Alerts: toAlertmanager(canary)}, nil)
		defer r.stop()
		around := func(who string) {
			r.Take(now(question("evil.example", client(who))))
			r.Take(now(connect("203.0.113.9", 443, client(who))))
		}
		around("10.20.0.7")
		for range 5 { // the group of the first closes after half an hour
			around("10.20.0.8")
			time.Sleep(10 * time.Minute)
		}
		said := 0
		at, bodies := r.got()
		for i, body := range bodies {
			for _, a := range readPostings(t, body) {
				if a.Labels["alertname"] != "denied-then-direct" {
					continue
				}
				if said++; !a.EndsAt.After(at[i]) {
					t.Fatalf("it was said to have ended at %s", at[i])
				}
			}
		}
		if said < 40 {
			t.Errorf("it was said %d times in 50 minutes", said)
		}
	})
}

// An alert that becomes more severe is another one to Alertmanager: the first
// ends. Groups with the same labels are one: it ends with the last of them.
func TestWhatIsOneAlertThereIsSaidAsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runCorrelator(t, alerting.CorrelatorSetup{Alerts: toAlertmanager(canary)}, nil)
		defer r.stop()
		for _, who := range []string{"10.20.0.7", "10.20.0.8"} { // a group for each
			r.Take(now(question("evil.example", client(who))))
			r.Take(now(connect("203.0.113.9", 443, client(who))))
		}
		time.Sleep(5 * time.Second)
		_, bodies := r.got()
		direct := 0
		for _, body := range bodies {
			for _, a := range readPostings(t, body) {
				if a.Labels["alertname"] != "denied-then-direct" {
					continue
				}
				direct++
				if a.Annotations["count"] != "2" || !strings.Contains(a.Annotations["summary"], "and 1 more alike") {
					t.Errorf("it says %v", a.Annotations)
				}
			}
		}
		if direct == 0 {
			t.Error("the two groups are nowhere")
		}

		before := len(bodies)
		aws := func(e *alerting.Event) { e.Reason = allowlists.SpecialAddress }
		r.Take(now(connect("169.254.169.254", 80, client("10.20.0.30"), aws)))
		time.Sleep(2 * time.Second)
		r.Take(now(question("evil.example", client("10.20.0.30"))))
		r.Take(now(connect("169.254.169.254", 80, client("10.20.0.30"), aws)))
		time.Sleep(10 * time.Second)
		at, bodies := r.got()
		var said []string
		for i := before; i < len(bodies); i++ {
			for _, a := range readPostings(t, bodies[i]) {
				if a.Labels["alertname"] == "metadata-access" {
					said = append(said, fmt.Sprint(a.Labels["severity"], " ", a.EndsAt.After(at[i])))
				}
			}
		}
		if want := []string{"high true", "critical true", "high false"}; !slices.Equal(said, want) {
			t.Errorf("said %v, want %v", said, want)
		}
	})
}

func TestAFoldedGroupHasNoHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runCorrelator(t, alerting.CorrelatorSetup{Alerts: toAlertmanager(canary)}, nil)
		defer r.stop()
		for i := range 5 {
			r.Take(now(connect(fmt.Sprintf("evil%d.example", i), 443)))
		}
		time.Sleep(5 * time.Second)
		for i := range 500 {
			r.Take(now(connect(fmt.Sprintf("more%d.example", i), 443)))
		}
		time.Sleep(10 * time.Second)
		active := map[string]bool{}
		at, bodies := r.got()
		for i, body := range bodies {
			for _, a := range readPostings(t, body) {
				active[a.Labels["host"]] = a.EndsAt.After(at[i])
			}
		}
		if len(active) > 6 || !active[""] {
			t.Errorf("labels for hosts: %v", active)
		}
		for host, still := range active {
			if host != "" && still {
				t.Errorf("%s was folded and its alert stands", host)
			}
		}
	})
}

func TestTextOfAJobIsNoMarkupInAlertmanager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runCorrelator(t, alerting.CorrelatorSetup{Alerts: toAlertmanager(canary)}, nil)
		defer r.stop()
		r.Take(now(connect("<!channel> [x](https://evil.example)\u202e\n@here", 443)))
		time.Sleep(2 * time.Second)
		_, bodies := r.got()
		for _, a := range readPostings(t, strings.Join(bodies, "")) {
			if text := fmt.Sprint(a.Labels, a.Annotations); strings.ContainsAny(strings.TrimPrefix(text, "map["), "<>@\n\u202e") {
				t.Errorf("%q", text)
			}
		}
	})
}
