package webui_test

import (
	"fmt"
	"html"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"sallyport/alerting"
	"sallyport/alerting/webui"
	"sallyport/proxy"
)

// TestEveryAnswerIsProtected: pages, faults, assets and what the API says.
func TestEveryAnswerIsProtected(t *testing.T) {
	w := newWorld(t)
	w.conn("a2b3c4d5e6f7", "10.20.0.7", "evil.example", 443)
	_, guarded := w.gate(token)
	for at, h := range map[string]http.Handler{"guarded": guarded, "open": w.pages} {
		for _, path := range append(allPaths(t, "a2b3c4d5e6f7"), "/api/v1/status") {
			for _, shown := range []string{"", "Bearer " + token} {
				header := get(t, h, path, with("Authorization", shown)).Header()
				for name, want := range map[string]string{
					"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
					"X-Content-Type-Options":  "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
				} {
					if got := header.Values(name); len(got) != 1 || got[0] != want {
						t.Errorf("%s %s: %s is %q", at, path, name, got)
					}
				}
			}
		}
	}
}

// TestNothingComesFromElsewhere: no served byte names another site, and no
// script or style stands within a page.
func TestNothingComesFromElsewhere(t *testing.T) {
	w := newWorld(t)
	w.conn("a2b3c4d5e6f7", "10.20.0.7", "evil.example", 443)
	elsewhere := regexp.MustCompile(`(?i)(https?:|wss?:|ftp:)?//[a-z0-9.-]+\.[a-z]|\ssrc="[^/]|url\(|@import|\son[a-z]+=|\sstyle=|<style|<script>|javascript:`)
	for _, path := range allPaths(t, "a2b3c4d5e6f7") {
		body := strings.ReplaceAll(get(t, w.pages, path).Body.String(), "http://www.w3.org/2000/svg", "")
		body = strings.ReplaceAll(body, "udp://192.0.2.1", "")
		if found := elsewhere.FindString(body); found != "" {
			t.Errorf("%s has %q", path, found)
		}
	}
}

// hostile are texts that a job may send as a name.
var hostile = []string{
	`<img src=x onerror=alert(1)>`, `"><script>alert(1)</script>`, `' onmouseover='alert(1)`, `</td></tr></table><h1>x`, `{{.}}`, `javascript:alert(1)`, "\u202eevil", `<!--`,
}

// TestTextOfAJobIsText, on every page, in attributes and in what is streamed.
func TestTextOfAJobIsText(t *testing.T) {
	w := newWorld(t)
	for i, text := range hostile {
		id := fmt.Sprintf("hostile%d", i)
		w.conn(id, "10.20.0.7", text, 443, func(r *proxy.ConnRecord) { r.SNI, r.Err, r.Names = text, text, []string{text} })
		w.ask("q"+id, "10.20.0.7", text)
	}
	tag := regexp.MustCompile(`(?i)<(script|img|h1)[^>]*>`)
	for i := range hostile {
		for _, path := range []string{"/", "/refusals", fmt.Sprintf("/decisions/hostile%d", i), "/?host=" + "%22%3E%3Cimg%20src=x%3E", "/pools/build?rule=%22%3E%3Cimg%20src=x%3E"} {
			body := get(t, w.pages, path).Body.String()
			for _, found := range tag.FindAllString(body, -1) {
				if found != `<script src="/assets/page.js" defer>` && found != "<h1>" {
					t.Errorf("%s has %s", path, found)
				}
			}
			if strings.Contains(body, "onerror=alert") && strings.Contains(body, "<img") || strings.Contains(body, "' onmouseover='") {
				t.Errorf("%s lets an attribute out: %s", path, body)
			}
		}
	}
	if body := get(t, w.pages, "/").Body.String(); !strings.Contains(body, html.EscapeString(hostile[0])) {
		t.Errorf("the name is not shown as it is: %s", body)
	}
}

// TestThePageIsFiltered by pool, client, verdict and host, without a script.
func TestThePageIsFiltered(t *testing.T) {
	w := newWorld(t)
	w.conn("allowed1", "10.20.0.7", "registry.corp.example", 443)
	w.conn("refused1", "10.20.0.8", "evil.example", 8443)
	w.conn("audited1", "10.30.0.7", "pypi.example", 443)
	w.ask("question1", "10.20.0.7", "Evil.EXAMPLE")
	w.ask("question2", "10.20.0.7", "registry.corp.example")
	for query, want := range map[string]string{
		"":                                   "question1 audited1 refused1 allowed1",
		"?pool=release":                      "audited1",
		"?pool=none":                         "",
		"?verdict=refused":                   "question1 refused1",
		"?verdict=allowed":                   "allowed1",
		"?verdict=audited":                   "audited1",
		"?client=10.20.0.8":                  "refused1",
		"?client=10.20.0.0%2F24":             "question1 refused1 allowed1",
		"?host=EVIL":                         "question1 refused1",
		"?host=evil&client=10.20.0.7":        "question1",
		"?host=registry&verdict=refused":     "",
		"?client=10.20":                      "",
		"?verdict=maybe":                     "",
		"?pool=build&verdict=&host=&client=": "question1 refused1 allowed1",
	} {
		answer := get(t, w.pages, "/"+query)
		var ids []string
		for _, found := range regexp.MustCompile(`<tr role="row" id="d-([a-z0-9]+)">`).FindAllStringSubmatch(answer.Body.String(), -1) {
			ids = append(ids, found[1])
		}
		if got := strings.Join(ids, " "); got != want {
			t.Errorf("%s: %s", query, got)
		}
		faulty := query == "?client=10.20" || query == "?verdict=maybe"
		if (answer.Code == http.StatusBadRequest) != faulty || strings.Contains(answer.Body.String(), `role="alert"`) != faulty {
			t.Errorf("%s: %d", query, answer.Code)
		}
	}
}

// TestRefusalsSayWhatWouldAllowThem, as alerts and explain do: the line, and a
// command that a shell reads as one destination.
func TestRefusalsSayWhatWouldAllowThem(t *testing.T) {
	w := newWorld(t)
	for i := range 3 {
		w.conn(fmt.Sprintf("evil%d", i), "10.20.0.7", "evil.example", 443)
	}
	w.ask("evilasked", "10.20.0.9", "evil.example")
	w.conn("other1", "10.20.0.7", "other.example", 8443)
	w.conn("gist1", "10.20.0.7", "gist.github.com", 443)
	w.conn("bad1", "10.20.0.7", "$(reboot).example", 443)
	body := html.UnescapeString(get(t, w.pages, "/refusals").Body.String())
	rows := strings.Split(body, "<tr role=\"row\">")[2:]
	if len(rows) != 4 || !strings.Contains(rows[0], `<td role="cell" class="number">4</td>`) || !strings.Contains(rows[0], "10.20.0.7, 10.20.0.9") {
		t.Fatalf("%d rows: %s", len(rows), body)
	}
	const explain = `<code class="command">sallyport explain -c '/etc/sallyport/it'\''s.yaml' `
	for want, row := range map[string]string{
		`<code class="line">- evil.example</code>`:         rows[0],
		explain + `--pool build evil.example</code>`:       rows[0],
		`<code class="line">- other.example:8443</code>`:   row(rows, "other.example"),
		explain + `--pool build other.example:8443</code>`: row(rows, "other.example"),
		`Only removing that rule would allow it.`:          row(rows, "gist.github.com"),
		explain + `bad1</code>`:                            row(rows, "reboot"),
		`docs/reasons.md has what to do about bad-host.`:   row(rows, "reboot"),
	} {
		if !strings.Contains(row, want) {
			t.Errorf("no %s in %s", want, row)
		}
	}
	for _, name := range []string{"gist.github.com", "reboot"} {
		if strings.Contains(row(rows, name), `class="line"`) {
			t.Errorf("a line is said to allow %s", name)
		}
	}
}

// row is that which has a text.
func row(rows []string, text string) string {
	for _, one := range rows {
		if strings.Contains(one, text) {
			return one
		}
	}
	return ""
}

// TestADecisionIsToldWhole: question, connection, alert, and what would allow it.
func TestADecisionIsToldWhole(t *testing.T) {
	w := newWorld(t)
	w.ask("askedabcdefg", "10.20.0.7", "evil.example")
	w.conn("connabcdefgh", "10.20.0.7", "evil.example", 443, func(r *proxy.ConnRecord) { r.DNSIDs = []string{"askedabcdefg"} })
	alert := w.awaitAlert("denied-egress")
	body := html.UnescapeString(get(t, w.pages, "/decisions/connabcdefgh").Body.String())
	for _, want := range []string{
		"refused</span> <span class=\"mono\">evil.example:443", `<a class="id" href="/decisions/askedabcdefg">`, "not-in-allowlist", `<code class="line">- evil.example</code>`,
		`"kind":"conn"`, "Alerts about it", "denied-egress", `<dt>client</dt><dd>10.20.0.7</dd>`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in %s", want, body)
		}
	}
	body = get(t, w.pages, "/decisions/"+alert.ID).Body.String()
	for _, want := range append([]string{"<h1>", ">denied-egress<", "severity"}, alert.Evidence...) {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in the alert's page: %s", want, body)
		}
	}
	body = get(t, w.pages, "/alerts").Body.String()
	if !strings.Contains(body, `href="/decisions/connabcdefgh"`) || !strings.Contains(body, `<span class="severity medium">medium</span> denied-egress`) {
		t.Errorf("the alert is not listed with its evidence: %s", body)
	}
	if got := get(t, w.pages, "/decisions/aaaaaaaaaaaa"); got.Code != http.StatusNotFound || !strings.Contains(got.Body.String(), "sallyport explain --events FILE aaaaaaaaaaaa") {
		t.Errorf("an id that nobody knows: %d %s", got.Code, got.Body)
	}
}

// awaitAlert waits for an alert, which comes behind its events, to be in the log.
func (w *world) awaitAlert(kind string) alerting.Alert {
	w.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(20 * time.Second); ; {
		open, _ := w.alerts.OpenAlerts(10)
		for _, a := range open {
			if _, told := w.alerts.Decision(a.ID); a.Alert == kind && told {
				return a
			}
		}
		select {
		case <-tick.C:
		case <-deadline:
			w.t.Fatal("there is no such alert")
		}
	}
}

// TestEnforcementIsShownAsMeasured.
func TestEnforcementIsShownAsMeasured(t *testing.T) {
	w := newWorld(t)
	for state, want := range map[string]string{"in-place": "</span> Enforced<", "not-in-place": "</span> Not enforced<", "unknown": "</span> Enforcement is not known<", "": "</span> Enforcement is not known<"} {
		w.status.Enforced = webui.Enforcement{Placement: "gateway", State: state, By: "probe", Faults: []string{"the table <is> gone"}, At: "2026-11-23T12:00:00Z"}
		body := get(t, w.pages, "/alerts").Body.String()
		for _, want := range []string{want, "gateway, measured by probe at 2026-11-23T12:00:00Z", "the table &lt;is&gt; gone", "The resolver udp://192.0.2.1:53 does not answer (no answer)."} {
			if !strings.Contains(body, want) {
				t.Errorf("%q: no %q in %s", state, want, body)
			}
		}
	}
}
