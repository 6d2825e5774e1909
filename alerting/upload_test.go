package alerting_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sallyport/alerting"
	"sallyport/allowlists"
)

func bytesSent(n int64) func(*alerting.Event) { return func(e *alerting.Event) { e.Sent = n } }

// id makes lines those of one connection.
func id(id string) func(*alerting.Event) { return func(e *alerting.Event) { e.ID = id } }

func progress(e *alerting.Event) { e.Phase = alerting.PhaseProgress }

func overLimit(e *alerting.Event) { e.Verdict, e.Reason = allowlists.Deny, allowlists.UploadLimit }

// uploads keeps what is about uploads.
func uploads(alerts []alerting.Alert) string {
	var kept []alerting.Alert
	for _, a := range alerts {
		if a.Alert == alerting.AlertUploadVolume {
			kept = append(kept, a)
		}
	}
	return summarise(kept)
}

const mb = 1_000_000

func TestUploadVolumeSpeaksOfWhatIsMoreThanUsual(t *testing.T) {
	type events = []alerting.Event
	at := func(host string, n int64, when time.Duration, change ...func(*alerting.Event)) alerting.Event {
		return reached(host, append([]func(*alerting.Event){bytesSent(n), after(when)}, change...)...)
	}
	// Two days of 5 MB each while the pool learns.
	taught := events{at("a.example", 5*mb, 0), at("a.example", 5*mb, day)}
	for _, c := range []struct {
		when   string
		events events
		want   string
	}{
		{"ten times the usual", append(taught, at("a.example", 50*mb, 8*day)), ""},
		{"more than that", append(taught, at("a.example", 56*mb, 8*day)), "upload-volume:high:1"},
		{"more than that while it learns", append(taught, at("a.example", 500*mb, 2*day)), ""},
		{"within the floor to a host that is sent little", events{at("a.example", 100, 0), at("a.example", 10*mb, 8*day)}, ""},
		{"past the floor to such a host", events{at("a.example", 100, 0), at("a.example", 11*mb, 8*day)}, "upload-volume:high:1"},
		{"in pieces within an hour", append(taught, at("a.example", 30*mb, 8*day), at("a.example", 30*mb, 8*day+50*time.Minute)), "upload-volume:high:1"},
		{"in pieces of two hours", append(taught, at("a.example", 30*mb, 8*day), at("a.example", 30*mb, 8*day+70*time.Minute)), ""},
		{"in pieces of two clients", append(taught, at("a.example", 30*mb, 8*day), at("a.example", 30*mb, 8*day, client("10.20.0.8"))), ""},
		{"in a tunnel that is open", append(taught, at("a.example", 30*mb, 8*day, id("x"), progress), at("a.example", 60*mb, 8*day+time.Minute, id("x"), progress)), "upload-volume:high:1"},
		{"in a tunnel whose lines add up to more", append(taught, at("a.example", 30*mb, 8*day, id("x"), progress), at("a.example", 31*mb, 8*day+time.Minute, id("x"), progress), at("a.example", 32*mb, 8*day+2*time.Minute, id("x"))), ""},
		{"once an hour", append(taught, at("a.example", 60*mb, 8*day), at("a.example", 60*mb, 8*day+time.Minute), at("a.example", 60*mb, 8*day+2*time.Hour)), "upload-volume:high:2"},
		{"to another host of the same client", append(taught, at("b.example", 11*mb, 8*day)), "upload-volume:high:1"},
		{"one job's usual is nobody's", events{at("a.example", 5*mb, 0, job("1")), at("a.example", 5*mb, day, job("1")), at("a.example", 11*mb, 8*day)}, "upload-volume:high:1"},
		{"two jobs of one day", events{at("a.example", 5*mb, 0, job("1")), at("a.example", 5*mb, time.Hour, job("2")), at("a.example", 11*mb, 8*day)}, ""},
		{"a client with a high alert teaches no usual", events{connect("203.0.113.9", 443), at("a.example", 5*mb, 0), at("a.example", 5*mb, day), at("a.example", 11*mb, 8*day, client("10.20.0.8"))}, "upload-volume:high:1"},
		{"a client with a high alert raises no usual of others", events{
			at("a.example", 1000, 0, client("10.20.0.8")), at("a.example", 1000, day, client("10.20.0.8")),
			connect("203.0.113.9", 443, after(2*day)), at("a.example", 5*mb, 2*day), connect("203.0.113.9", 443, after(3*day)), at("a.example", 5*mb, 3*day),
			at("a.example", 11*mb, 8*day, client("10.20.0.8")),
		}, "upload-volume:high:1"},
		{"an upload that the idle time ended", append(taught, at("a.example", 60*mb, 8*day, reason(allowlists.TimedOut))), "upload-volume:high:1"},
		{"past the limit of a rule", events{at("a.example", 1000, 0, overLimit)}, "upload-volume:high:1"},
		{"past it in audit", events{at("a.example", 1000, 0, progress, func(e *alerting.Event) {
			e.Reason, e.Would = allowlists.AllowedByAudit, allowlists.UploadLimit
		})}, "upload-volume:high:1"},
		{"downloads", append(taught, at("a.example", 1000, 8*day, func(e *alerting.Event) { e.Received = 1 << 40 })), ""},
	} {
		t.Run(c.when, func(t *testing.T) {
			correlator := newCorrelator(t, learning(7*day, 50))
			for _, e := range c.events {
				correlator.Take(e)
			}
			if got := uploads(correlator.Alerts()); got != c.want {
				t.Errorf("alerts are %q, want %q", got, c.want)
			}
		})
	}
}

// TestLessonsAreBounded: of many jobs within an hour, the few that saw the most
// are remembered.
func TestLessonsAreBounded(t *testing.T) {
	c := newCorrelator(t, learning(7*day, 500))
	for i := range 40 {
		c.Take(reached("a.example", bytesSent(int64(i+1)*mb), job(fmt.Sprint(i))))
	}
	e := c.Entries("build")[0]
	if len(e.Lessons) != 2 || e.Lessons[0].Bytes != 820*mb || e.Usual != 780*mb {
		t.Errorf("usual %d, of %+v", e.Usual, e.Lessons)
	}
}

// TestAnUploadAlertSaysHowMuch names client, host, bytes and the usual.
func TestAnUploadAlertSaysHowMuch(t *testing.T) {
	c := newCorrelator(t, learning(7*day, 50))
	c.Take(reached("a.example", bytesSent(2*mb)))
	c.Take(reached("a.example", bytesSent(3*mb), after(day)))
	c.Take(reached("a.example", bytesSent(52*mb), after(8*day)))
	a := find(t, c, alerting.AlertUploadVolume)
	if a.Host != "a.example" || a.Summary != "10.20.0.7 sent 52.0 MB to a.example:443 within an hour; usual in pool build is 2.0 MB" {
		t.Errorf("host %q: %s", a.Host, a.Summary)
	}
}

// TestAUsualGrowsSlowly: whoever sends as much as passes unseen, every day by
// two jobs, gets no further than twice a day.
func TestAUsualGrowsSlowly(t *testing.T) {
	c := newCorrelator(t, learning(7*day, 50))
	c.Take(reached("a.example", bytesSent(1000)))
	c.Take(reached("a.example", bytesSent(1000), after(day)))
	usual, last := int64(0), int64(0)
	for d := 8; d < 12; d++ {
		for hour := range 20 { // many times, by ever new jobs
			c.Take(reached("a.example", bytesSent(9*mb), after(time.Duration(d)*day+time.Duration(hour)*time.Hour), job(fmt.Sprint(d, hour))))
		}
		usual = c.Entries("build")[0].Usual
		if most := 2 * max(last, mb); usual > most {
			t.Errorf("on day %d the usual went from %d to %d", d, last, usual)
		}
		last = usual
	}
	if usual < 5*mb {
		t.Errorf("the usual never grows: %d", usual)
	}
	if got := uploads(c.Alerts()); got != "" {
		t.Errorf("alerts are %q", got)
	}
}

// TestUploadsAreBounded opens more tunnels, to more hosts, than are remembered:
// the large upload among them is found all the same.
func TestUploadsAreBounded(t *testing.T) {
	t.Parallel()
	c := newCorrelator(t, learning(7*day, 50))
	c.Take(reached("a.example"))
	big := func(n int64) alerting.Event {
		return reached("big.example", bytesSent(n), after(8*day), id("big"), progress)
	}
	c.Take(big(9 * mb))
	for i := range 140_000 {
		c.Take(reached(fmt.Sprintf("h%d.example", i), bytesSent(1000), after(8*day), progress))
	}
	tunnels, hours := c.UploadState()
	if tunnels > 65_536 || hours > 65_536 {
		t.Errorf("%d tunnels and %d sums are remembered", tunnels, hours)
	}
	c.Take(big(12 * mb))
	if got := uploads(c.Alerts()); !strings.Contains(got, "upload-volume:high") {
		t.Errorf("alerts are %q", got)
	}
}
