package test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestGatewayScans lets nmap try 1,000 ports of one address, and then, from
// another runner, one port of each address of a /24. People are told once of
// each, soon and with the count, and not of every port.
func TestGatewayScans(t *testing.T) {
	needProgram(t, "nmap")
	w := newGatewayWorld(t, "build1", "build2", "deploy1")
	d := w.prepare(buildPools, "")
	d.extra = fmt.Sprintf("\nalerts: {state_dir: %s, group_interval: 5s, thresholds: {first_digest: 1s}}", d.path("state"))
	d.write(upstream+":53", buildPools)
	d.run()
	before := w.watch()

	for _, s := range []struct {
		says, by string
		args     []string
		least    int // of the tries are refused; port 53 is our resolver's, wherever it was meant to be
	}{
		{"1,000 ports of one address", "build1", []string{attacker4 + "9"}, 999},
		{"a port of 254 addresses", "build2", []string{"-p", "8443", attacker4 + "1-254"}, 254},
	} {
		t.Run(s.says, func(t *testing.T) {
			r := w.runners[s.by]
			if out, err := r.run(nil, append([]string{"nmap", "-sT", "-Pn"}, s.args...)...); err != nil {
				t.Fatalf("nmap: %v\n%s", err, out)
			}
			d.wait("a scan with its count", func(e event) bool {
				count, _, _ := strings.Cut(e.text("summary"), " ")
				n, _ := strconv.Atoi(count)
				return e.text("alert") == "scan" && e.text("client") == r.ip && n >= s.least
			})
			checkScan(t, d.events(), r.ip)
			if t.Failed() {
				t.Log(d.dump())
			}
		})
	}
	before.checkNothing(t, "a scan")
}

// checkScan holds the log against what people may be told of a client's scan.
func checkScan(t *testing.T, events []event, client string) {
	t.Helper()
	tried := make(map[string]time.Time) // destinations, and when first
	var crossed, told time.Time         // when the 20th came, and when the alert did
	ids := make(map[string]string)      // of every alert
	for _, e := range events {
		if e.text("client") != client {
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, e.text("time"))
		if err != nil {
			t.Fatal(err)
		}
		switch to := fmt.Sprint(e["ip"], e["port"]); {
		case e.text("kind") == "alert":
			if ids[e.text("id")] = e.text("alert"); e.text("alert") == "scan" && told.IsZero() {
				told = at
			}
		case e.text("kind") == "conn" && e.text("verdict") == "deny" && tried[to].IsZero():
			if tried[to] = at; len(tried) == 20 {
				crossed = at
			}
		}
	}
	kinds := make(map[string]int)
	for _, alert := range ids {
		kinds[alert]++
	}
	t.Logf("%d destinations, the scan told %s after the 20th; alerts: %v", len(tried), told.Sub(crossed).Round(time.Millisecond), kinds)
	if kinds["scan"] != 1 {
		t.Errorf("%d scans were told", kinds["scan"])
	}
	if wait := told.Sub(crossed); wait > 5*time.Second {
		t.Errorf("the scan was told %s after the 20th destination", wait)
	}
	if len(ids) > 8 {
		t.Errorf("%d alerts for one scan: %v", len(ids), kinds)
	}
}
