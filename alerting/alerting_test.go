package alerting_test

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sallyport/alerting"
	"sallyport/alerting/eventtest"
	"sallyport/allowlists"
	"sallyport/allowlists/diag"
	"sallyport/dnsfilter"
	"sallyport/proxy"
)

// observed runs observe and returns the events that the log and the reader got.
func observed(t *testing.T, observe func(*alerting.Alerting)) (lines string, taken []alerting.Event) {
	t.Helper()
	w, k := &faultyWriter{}, &taker{}
	g := newLog(t, toStream(w))
	g.SetReader(k.reader())
	g.run(t)
	observe(g.Alerting)
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	eventtest.ValidateLines(t, strings.NewReader(w.text()))
	return w.text(), k.events
}

func aSubject() allowlists.Subject {
	return allowlists.Subject{Client: netip.MustParseAddr("10.20.0.7"), Pool: "build", Iface: "br-build", Job: &allowlists.Job{Repo: "corp/app"}}
}

func TestAQuestionBecomesALine(t *testing.T) {
	host, err := allowlists.ParseHost("registry.corp.example")
	if err != nil {
		t.Fatal(err)
	}
	rule := &allowlists.Rule{Pos: diag.Pos{File: "sallyport.yaml", Line: 14}}
	record := dnsfilter.QueryRecord{
		ID: "k3v9x2m4p7qa", Time: noon.Add(789), Subject: aSubject(), Generation: 3, By: "proxy",
		Name: "Registry.corp.example", Host: host, Type: 28,
		Decision: allowlists.Decision{Verdict: allowlists.Allow, Reason: allowlists.Allowed, Rule: rule},
		Answers:  []netip.Addr{netip.MustParseAddr("2001:db8::7")}, Removed: []netip.Addr{netip.MustParseAddr("::1")},
		CNAMEs: []string{"edge.corp.example"}, Cached: true, Upstream: "10.0.0.2:53", Took: 1234567, TTL: time.Minute,
	}
	const want = `{"v":1,"time":"2026-11-23T12:00:00.123456Z","kind":"dns","id":"k3v9x2m4p7qa","pool":"build","client":"10.20.0.7","iface":"br-build","policy":3,` +
		`"job":{"repo":"corp/app"},"by":"proxy","name":"Registry.corp.example","type":"AAAA","verdict":"allow","reason":"allowed","rule":"sallyport.yaml:14",` +
		`"rcode":"NOERROR","answers":["2001:db8::7"],"removed":["::1"],"cnames":["edge.corp.example"],"cached":true,"upstream":"10.0.0.2:53","ms":1.234}` + "\n"
	lines, taken := observed(t, func(a *alerting.Alerting) { a.ObserveQuery(record) })
	if lines != want {
		t.Errorf("got  %swant %s", lines, want)
	}
	if e := taken[0]; e.Host != "registry.corp.example" || e.TTL != time.Minute || e.Subject() != record.Subject || e.Reverse() {
		t.Errorf("taken: %+v", e)
	}
	if back := parsed(t, []byte(lines)); back.Host != taken[0].Host || !back.Time.Equal(taken[0].Time) || back.Took != taken[0].Took {
		t.Errorf("read back: %+v", back)
	}
}

func TestAConnectionBecomesALine(t *testing.T) {
	record := proxy.ConnRecord{
		ID: "k3v9x2m4p7qa", Time: noon, Subject: aSubject(), Generation: 3, Phase: proxy.PhaseClose, Via: proxy.ViaConnect,
		Host: "registry.corp.example", Port: 443, Addr: netip.MustParseAddr("::ffff:198.51.100.7"), ClientPort: 50123,
		SNI: "other.example", ALPN: "h2,http/1.1", ECH: true, Method: "CONNECT",
		Decision: allowlists.Decision{Reason: allowlists.SNIMismatch, Quiet: true},
		DNSIDs:   []string{"a2b3c4d5e6f7", "b2b3c4d5e6f7"}, Names: []string{"registry.corp.example"},
		Redialled: true, Original: netip.MustParseAddr("203.0.113.5"), Ambiguous: true, Sent: 0, Received: 0, Took: 2 * time.Second, Err: "reset",
	}
	const want = `{"v":1,"time":"2026-11-23T12:00:00.123456Z","kind":"conn","id":"k3v9x2m4p7qa","pool":"build","client":"10.20.0.7","iface":"br-build","policy":3,` +
		`"job":{"repo":"corp/app"},"via":"connect","host":"registry.corp.example","port":443,"ip":"198.51.100.7","client_port":50123,"sni":"other.example",` +
		`"alpn":"h2,http/1.1","ech":true,"method":"CONNECT","verdict":"deny","reason":"sni-mismatch","quiet":true,"dns_id":"b2b3c4d5e6f7",` +
		`"names":["registry.corp.example"],"redialled":true,"original":"203.0.113.5","ambiguous":true,"sent":0,"received":0,"ms":2000.000,"error":"reset","phase":"close"}` + "\n"
	lines, _ := observed(t, func(a *alerting.Alerting) { a.ObserveConn(record) })
	if lines != want {
		t.Errorf("got  %swant %s", lines, want)
	}
}

func TestUnknownTypesAndCodesHaveNumbers(t *testing.T) {
	lines, _ := observed(t, func(a *alerting.Alerting) {
		a.ObserveQuery(dnsfilter.QueryRecord{ID: "a", Subject: aSubject(), By: "client", Type: 1234, RCode: 23})
		a.ObserveQuery(dnsfilter.QueryRecord{ID: "b", Subject: aSubject(), By: "client", Type: 65, RCode: -1})
	})
	for _, want := range []string{`"type":"TYPE1234"`, `"rcode":"RCODE23"`, `"type":"HTTPS"`, `"rcode":""`} {
		if !strings.Contains(lines, want) {
			t.Errorf("%s lacks %s", lines, want)
		}
	}
}

func TestReverseQuestionsAreKnown(t *testing.T) {
	for name, want := range map[string]bool{
		"7.100.51.198.in-addr.arpa": true, "7.0.0.0.8.B.D.0.1.0.0.2.IP6.ARPA": true, "in-addr.arpa.example": false, "github.com": false,
	} {
		line, _ := json.Marshal(alerting.Event{Time: noon, Kind: alerting.KindDNS, Name: name, Type: "PTR"})
		e := parsed(t, line)
		if e.Reverse() != want {
			t.Errorf("%s: %v", name, e.Reverse())
		}
	}
}

func TestAConfigurationThatMakesNoSenseIsAnError(t *testing.T) {
	for _, log := range []allowlists.Log{{}, {Events: "stdout", OnError: "ignore"}} {
		if _, err := alerting.New(alerting.Config{Events: log}); err == nil {
			t.Errorf("%+v is taken", log)
		}
	}
}
