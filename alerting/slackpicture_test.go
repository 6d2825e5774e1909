package alerting_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/alerting"
	"sallyport/allowlists"
)

// slackStories are the messages of docs/img/slack.png.
func slackStories() [][]alerting.SlackItem {
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	refused := alerting.SlackItem{
		Alert: alerting.Alert{
			ID: "k3v9x2m4p7qa", Alert: alerting.AlertDeniedEgress, Severity: alerting.Medium, Pool: "build",
			Summary: "telemetry.example:443 was refused to 10.20.0.7 in pool build (not-in-allowlist)", Client: netip.MustParseAddr("10.20.0.7"),
			Reason: "not-in-allowlist", Count: 214, First: at, Last: at.Add(9*time.Minute + 12*time.Second), Evidence: []string{"h5zqd3m2kx7b"},
			Host: "telemetry.example", Port: 443, Suggest: "- telemetry.example",
			Job: &allowlists.Job{Repo: "corp/shop", Workflow: "ci", RunID: "8123", Job: "unit-tests"},
		},
		New: 131, Repeat: true,
	}
	metadata := alerting.SlackItem{Alert: alerting.Alert{
		ID: "b7c2n8e5w3ya", Alert: alerting.AlertMetadataAccess, Severity: alerting.Critical, Pool: "deploy",
		Summary: "10.20.0.9 in pool deploy tried the cloud metadata address 169.254.169.254:80, and sent a request", Client: netip.MustParseAddr("10.20.0.9"),
		Reason: "special-address", Count: 1, First: at, Last: at, Evidence: []string{"w8ne4r6tq2zc"}, IP: netip.MustParseAddr("169.254.169.254"), Port: 80,
	}, New: 1}
	folded := alerting.SlackItem{Alert: alerting.Alert{
		ID: "p4d9s6v2j8mx", Alert: alerting.AlertDeniedEgress, Severity: alerting.Medium, Pool: "build",
		Summary: "41 destinations were refused to 10.20.0.12 in pool build", Client: netip.MustParseAddr("10.20.0.12"), Reason: "not-in-allowlist",
		Count: 96, First: at, Last: at.Add(48 * time.Second), Evidence: []string{"c2xk7m9qp5ra"}, DestinationCount: 41,
		Destinations: []string{"a1.ads.example", "a2.ads.example", "cdn.tracker.example", "pool.mining.example"},
	}, New: 96}
	direct := metadata
	direct.Alert = alerting.Alert{
		ID: "m6t3q9w5b2kd", Alert: alerting.AlertDeniedThenDirect, Severity: alerting.Critical, Pool: "deploy",
		Summary: "paste.example was refused to 10.20.0.9 in pool deploy, and 3.2 s later it tried 203.0.113.80:443, which no answer gave it",
		Client:  netip.MustParseAddr("10.20.0.9"), Reason: "address-literal", Count: 2, First: at, Last: at.Add(4 * time.Second),
		Evidence: []string{"d4mq8xw2vt6n", "y7bk3pz5hc9e"}, IP: netip.MustParseAddr("203.0.113.80"), Port: 443,
	}
	return [][]alerting.SlackItem{{refused}, {metadata, direct}, {folded}}
}

// slackDaily is the daily summary of docs/img/slack.png.
func slackDaily() ([]byte, error) {
	to := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	return alerting.EncodeSlackDay("ddddeeeefffd", to.Add(-24*time.Hour), to, func(count func(*alerting.Event), found func(pool, alert, host string, severity alerting.Severity, times int)) {
		for _, c := range []struct {
			pool, host string
			phase      string
			times      int
		}{
			{"build", "registry.npmjs.org", alerting.PhaseOpen, 48213}, {"build", "telemetry.example", alerting.PhaseRefused, 214},
			{"build", "cdn.tracker.example", alerting.PhaseRefused, 41}, {"deploy", "api.github.com", alerting.PhaseOpen, 902},
			{"deploy", "paste.example", alerting.PhaseRefused, 2}, {"nightly", "github.com", alerting.PhaseOpen, 77},
		} {
			e := alerting.Event{Kind: alerting.KindConn, Pool: c.pool, Host: c.host, Phase: c.phase, Verdict: allowlists.Deny}
			if c.phase == alerting.PhaseOpen {
				e.Verdict = allowlists.Allow
			}
			for range c.times {
				count(&e)
			}
		}
		count(&alerting.Event{Kind: alerting.KindSystem, Event: alerting.SystemSinkFailing, Details: map[string]any{"state": "failing"}})
		count(&alerting.Event{Kind: alerting.KindSystem, Event: alerting.SystemSinkFailing, Details: map[string]any{"state": "recovered"}})
		count(&alerting.Event{Kind: alerting.KindSystem, Event: alerting.SystemEnforcement, Details: map[string]any{"state": "in-place"}})
		found("build", alerting.AlertDeniedEgress, "telemetry.example", alerting.Medium, 2)
		found("deploy", alerting.AlertDeniedThenDirect, "paste.example", alerting.Critical, 1)
		found("build", alerting.AlertFirstSeen, "downloads.gradle.example", alerting.Medium, 1)
		found("nightly", alerting.AlertResolvedUnused, "", alerting.Info, 3)
	})
}

// TestThePictureInTheDocumentsIsCurrent holds docs/img/slack.json, from which
// .ci/picture makes docs/img/slack.png, against the encoder.
func TestThePictureInTheDocumentsIsCurrent(t *testing.T) {
	links := allowlists.Links{Docs: "https://wiki.corp.example/sallyport#{alert}", Event: "https://logs.corp.example/sallyport?id={id}"}
	var payloads [][]byte
	for i, items := range slackStories() {
		body, err := alerting.EncodeSlack("ddddeeeefff"+string(rune('a'+i)), items, links)
		if err != nil {
			t.Fatal(err)
		}
		checkSlack(t, body)
		payloads = append(payloads, body)
	}
	summary, err := slackDaily()
	if err != nil {
		t.Fatal(err)
	}
	checkSlack(t, summary)
	payloads = append(payloads, summary)
	var source bytes.Buffer
	if err := json.Indent(&source, append(append([]byte("["), bytes.Join(payloads, []byte(","))...), ']'), "", " "); err != nil {
		t.Fatal(err)
	}
	source.WriteByte('\n')
	page := renderSlack(t, payloads...)
	if to := os.Getenv("SALLYPORT_PICTURE"); to != "" {
		if err := os.WriteFile(to, page, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join("..", "docs", "img")
	if *update {
		if err := os.WriteFile(filepath.Join(dir, "slack.json"), source.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadFile(filepath.Join(dir, "slack.json"))
	if err != nil || !bytes.Equal(kept, source.Bytes()) {
		t.Errorf("docs/img/slack.json is not what the encoder makes (%v); run go test ./alerting -update and .ci/picture, and look at the picture", err)
	}
	sum := sha256.Sum256(kept)
	if made, _ := os.ReadFile(filepath.Join(dir, "slack.sum")); !strings.HasPrefix(string(made), hex.EncodeToString(sum[:])) {
		t.Error("docs/img/slack.png was made of another docs/img/slack.json; run .ci/picture and look at the picture")
	}
}
