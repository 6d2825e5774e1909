package webui_test

import (
	"fmt"
	"html"
	"strings"
	"testing"
	"time"

	"sallyport/alerting"
	"sallyport/allowlists"
)

// TestPoolsShowTheirRules: own and of presets with their places, and which were
// never used; of many rules a part at a time.
func TestPoolsShowTheirRules(t *testing.T) {
	w := newWorld(t)
	w.conn("allowed1", "10.20.0.7", "registry.corp.example", 443)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	rule := &w.policy.Pool("build").Spec().Allow[0]
	for id := alerting.IDOfRule("build", rule); w.alerts.RuleUse([]alerting.RuleID{id}).Hits[id].Count == 0; {
		<-tick.C
	}
	body := html.UnescapeString(get(t, w.pages, "/pools/build").Body.String())
	for _, want := range []string{
		`<td role="cell" class="what">registry.corp.example</td>`, "sallyport.yaml:7", `<td role="cell" class="number">1</td>`, "preset:npm:", `<span class="unused">unused</span>`,
		"has expired; owner platform@corp.example; the <old> mirror", `<td role="cell" class="list deny">deny</td>`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in %s", want, body)
		}
	}
	if body := get(t, w.pages, "/pools/build?show=unused").Body.String(); strings.Contains(body, "sallyport.yaml:7<") || !strings.Contains(body, "old.corp.example") {
		t.Errorf("unused: %s", body)
	}
	if body := get(t, w.pages, "/pools/build?rule=OLD.corp").Body.String(); strings.Contains(body, "registry.corp.example</td>") || !strings.Contains(body, "Effective rules 1 to 1 of 1<") {
		t.Errorf("found: %s", body)
	}
	body = get(t, w.pages, "/pools").Body.String()
	if !strings.Contains(body, `<td role="cell" class="mode audit">audit</td>`) || !strings.Contains(body, `href="/pools/build?show=unused"`) {
		t.Errorf("pools: %s", body)
	}
}

// TestGrantsAreShown with who, why and until when.
func TestGrantsAreShown(t *testing.T) {
	w := newWorld(t)
	if body := get(t, w.pages, "/pools").Body.String(); strings.Contains(body, "Granted for a while") {
		t.Errorf("there is no grant: %s", body)
	}
	g, err := allowlists.NewGrant(w.policy, "build", "mirror.example:8443", "<release> night", "uid 1000", time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	granted, err := w.policy.WithGrants([]allowlists.Grant{g})
	if err != nil {
		t.Fatal(err)
	}
	w.inForce.Store(granted)
	body := get(t, w.pages, "/pools").Body.String()
	for _, want := range []string{`<a href="/pools/build">build</a> may reach <span class="mono">mirror.example:8443</span> until `, "by uid 1000: &lt;release&gt; night", g.ID} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in %s", want, body)
		}
	}
	if body := get(t, w.pages, "/pools/build").Body.String(); !strings.Contains(body, "granted, outside of the configuration; until ") {
		t.Errorf("the rule does not say so: %s", body)
	}
}

// TestManyRulesAreShownInParts.
func TestManyRulesAreShownInParts(t *testing.T) {
	w := newWorld(t)
	var text strings.Builder
	text.WriteString("pools:\n  build:\n    allow:\n")
	for i := range 600 {
		fmt.Fprintf(&text, "      - n%d.corp.example\n", i)
	}
	file, _ := allowlists.Load([]allowlists.Source{{Name: "sallyport.yaml", Text: []byte(text.String())}}, func(string) (string, bool) { return "", false }, time.Now())
	w.inForce.Store(file.Policy)
	for query, want := range map[string]string{"": "1 to 250 of 600", "?from=251": "251 to 500 of 600", "?from=501": "501 to 600 of 600", "?from=601": "1 to 250 of 600", "?from=-1": "1 to 250 of 600", "?from=x": "1 to 250 of 600"} {
		body := get(t, w.pages, "/pools/build"+query).Body.String()
		if !strings.Contains(body, "Effective rules "+want+"<") {
			t.Errorf("%s: not %s", query, want)
		}
		if strings.Contains(body, `rel="next"`) != !strings.Contains(want, "to 600") || strings.Contains(body, `rel="prev"`) != !strings.Contains(want, "1 to 250") {
			t.Errorf("%s: before and behind", query)
		}
	}
}
