package alerting_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/alerting"
)

// TestALogRotatedWhileNobodyRanIsReadToItsEnd renames the log in its directory.
func TestALogRotatedWhileNobodyRanIsReadToItsEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	first := &taker{}
	runOnce(t, path, first, refusal("a"), refusal("b"), refusal("c"))
	if err := os.Rename(path, path+"-2026.old"); err != nil {
		t.Fatal(err)
	}
	runOnce(t, path, &taker{}, refusal("d")) // a daemon without a kept place
	second := &taker{saved: first.events[0].Pos}
	runOnce(t, path, second, refusal("e"))
	var got []string
	for _, e := range second.taken() {
		if e.Kind == alerting.KindConn {
			got = append(got, e.ID)
		}
	}
	if strings.Join(got, " ") != "b c d e" {
		t.Errorf("taken: %v", got)
	}
	if d := resumedDetails(t, second); fmt.Sprint(d["rotated"]) != "events.jsonl-2026.old" || fmt.Sprint(d["events"]) != "3" {
		t.Errorf("details are %v", d)
	}
}

// TestWithTheStateLostTheLogIsReadAgain has a reader that knows no place as its
// state was damaged.
func TestWithTheStateLostTheLogIsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	old, young := refusal("old"), refusal("young")
	old.Time, young.Time = time.Now().Add(-25*time.Hour), time.Now().Add(-23*time.Hour)
	runOnce(t, path, &taker{}, old, young)
	k := &taker{}
	config := toFile(path)
	config.Alerts.StateDir = filepath.Dir(path)
	g := newLog(t, config)
	reader := k.reader()
	reader.Lost = true
	g.SetReader(reader)
	g.run(t)
	g.stop()
	if d := resumedDetails(t, k); k.has("old") || !k.has("young") || d["lost_state"] == nil {
		t.Errorf("taken: %v, details %v", ids(k.taken()), d)
	}
}

// TestARefusalBeforeARestartIsJoined stops the correlator between a refused name
// and the connection to its address.
func TestARefusalBeforeARestartIsJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			what string
			ago  time.Duration
			want string
		}{{"lately", 20 * time.Second, "denied-then-direct"}, {"long ago", 20 * time.Minute, "direct-ip"}} {
			var got []string
			r := runCorrelator(t, alerting.CorrelatorSetup{Alerts: toWebhook(), Emit: func(e alerting.Event) { got = append(got, e.Alert) }}, nil)
			refused := now(question("evil.example"))
			refused.Time = refused.Time.Add(-c.ago)
			r.Recall(refused)
			r.Take(now(connect("203.0.113.9", 443)))
			time.Sleep(5 * time.Second)
			r.stop()
			if strings.Join(got, " ") != c.want {
				t.Errorf("refused %s: %v, want %s", c.what, got, c.want)
			}
		}
	})
}

// TestAlertsOfADamagedStateAreToldAgain recalls the log's alert lines: what the
// state does not have is told, with its count; what it has is not.
func TestAlertsOfADamagedStateAreToldAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	filled(t, dir, 5).Close()
	path := filepath.Join(dir, "alerts.jsonl")
	data, _ := os.ReadFile(path)
	copy(data[len(data)/2:], "damage")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	store := reopened(t, dir)
	synctest.Test(t, func(t *testing.T) {
		lost := alerting.Event{
			Time: time.Now(), Kind: alerting.KindAlert, ID: "aaaabbbbcccc", Alert: "direct-ip", Severity: "high", Key: "direct-ip/build/203.0.113.9",
			Pool: "build", Count: 7, First: time.Now(), Last: time.Now(), Summary: "203.0.113.9 was tried",
		}
		grown, info, fold := lost, lost, lost
		grown.Count = 9
		info.ID, info.Key, info.Severity = "info", "rebinding/build/a.example", "info"
		fold.ID, fold.Alert, fold.Severity, fold.Key, fold.Count = "ffffoooolddd", "denied-egress", "medium", "denied-egress/build/client 10.20.0.7", 50
		lines := 0
		r := runCorrelator(t, alerting.CorrelatorSetup{
			Alerts: toWebhook(), Store: store, Lost: true, Emit: func(alerting.Event) { lines++ },
		}, nil)
		for _, e := range []alerting.Event{lost, grown, info, fold} {
			r.Recall(e)
		}
		r.Take(now(question("one.example"))) // joins the fold
		time.Sleep(10 * time.Second)
		r.stop()
		_, bodies := r.got()
		got := map[string]int{}
		for _, post := range readPosts(t, bodies) {
			for _, a := range post.Alerts {
				got[a.ID] += a.New
			}
		}
		if len(got) != 2 || got[lost.ID] != 9 || got[fold.ID] != 51 {
			t.Errorf("told: %v", got)
		}
		if lines != 1 { // of the fold, which grew
			t.Errorf("%d alert lines", lines)
		}
	})
}
