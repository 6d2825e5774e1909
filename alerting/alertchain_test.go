package alerting_test

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/alerting"
	"sallyport/allowlists"
	"sallyport/dnsfilter"
	"sallyport/proxy"
)

// TestFromTheRecordToSlack goes the whole way: a record, its line, the
// correlator, the message, and the alert's own line.
func TestFromTheRecordToSlack(t *testing.T) {
	dir := t.TempDir()
	s := newServer(t, nil)
	path := filepath.Join(dir, "events.jsonl")
	config := toFile(path)
	config.Alerts = allowlists.Alerts{StateDir: filepath.Join(dir, "state"), Slack: allowlists.Slack{WebhookURL: s.URL + "/services/canary"}}
	g := newLog(t, config).run(t)
	who := allowlists.Subject{Pool: "build", Client: netip.MustParseAddr("10.20.0.7")}
	host, err := allowlists.ParseHost("evil.example")
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	g.ObserveQuery(dnsfilter.QueryRecord{
		ID: "aaaabbbbcccc", Time: begun, Subject: who, By: "client", Name: "evil.example.", Host: host, Type: 1,
		Decision: allowlists.Decision{Reason: allowlists.NotInAllowlist}, RCode: 3,
	})
	g.ObserveConn(proxy.ConnRecord{
		ID: "ddddeeeeffff", Time: begun, Subject: who, Phase: proxy.PhaseRefused, Via: proxy.ViaConnect, Host: "203.0.113.9", Port: 443,
		Addr: netip.MustParseAddr("203.0.113.9"), Decision: allowlists.Decision{Reason: allowlists.AddressLiteral},
	})
	eventually(t, "the critical message", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return strings.Contains(strings.Join(s.bodies, ""), alerting.AlertDeniedThenDirect)
	})
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	for _, body := range s.bodies {
		checkSlack(t, []byte(body))
	}
	found := map[string]int{}
	for _, e := range readLog(t, path) {
		if e.Kind == alerting.KindAlert {
			found[e.Alert] += e.Count
			if e.Alert == alerting.AlertDeniedThenDirect && (len(e.Evidence) != 2 || e.Severity != "critical" || e.Host != "evil.example") {
				t.Errorf("its line is %+v", e)
			}
		}
	}
	if found[alerting.AlertDeniedThenDirect] != 1 || found[alerting.AlertDeniedEgress] != 1 {
		t.Errorf("alert lines: %v", found)
	}
}

// TestWhatHasNoNameStopsNoSink has a client without a pool fold its refusals
// with those of messages that could not be read.
func TestWhatHasNoNameStopsNoSink(t *testing.T) {
	s := newServer(t, nil)
	config := toFile(filepath.Join(t.TempDir(), "events.jsonl"))
	config.Alerts = allowlists.Alerts{Slack: allowlists.Slack{WebhookURL: s.URL}}
	g := newLog(t, config).run(t)
	for i, name := range []string{"", "a.example.", "b.example.", "c.example.", "d.example.", "e.example.", "f.example."} {
		g.ObserveQuery(dnsfilter.QueryRecord{
			ID: fmt.Sprint("aaaabbbbccc", i), Time: time.Now(), Subject: allowlists.Subject{Client: netip.MustParseAddr("10.20.0.7")}, By: "client",
			Name: name, Decision: allowlists.Decision{Reason: allowlists.NoPool}, RCode: 5,
		})
	}
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	all := ""
	for _, body := range s.bodies {
		all += strings.Join(checkSlack(t, []byte(body)), "\n")
	}
	if !strings.Contains(all, "7 destinations were refused") || !strings.Contains(all, "an unknown destination") {
		t.Errorf("Slack was told %q", all)
	}
}

// TestAlertsOfALogNobodyReadComeAfterTheRestart starts over a log whose last
// refusals no correlator saw.
func TestAlertsOfALogNobodyReadComeAfterTheRestart(t *testing.T) {
	dir := t.TempDir()
	s := newServer(t, func(_ int, w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	config := toFile(filepath.Join(dir, "events.jsonl"))
	config.Alerts = allowlists.Alerts{StateDir: filepath.Join(dir, "state"), Slack: allowlists.Slack{WebhookURL: s.URL}}
	if err := newLog(t, config).run(t).stop(); err != nil { // leaves the place where it stopped
		t.Fatal(err)
	}
	mute := config
	mute.Alerts = allowlists.Alerts{}
	before := newLog(t, mute).run(t)
	before.Record(refusal("aaaabbbbcccc"))
	if err := before.stop(); err != nil {
		t.Fatal(err)
	}
	after := newLog(t, config).run(t)
	eventually(t, "the message", func() bool { return s.count() == 1 })
	if err := after.stop(); err != nil {
		t.Fatal(err)
	}
	if body := s.bodies[0]; !strings.Contains(body, "explain aaaabbbbcccc") {
		t.Errorf("it says %s", body)
	}
}
