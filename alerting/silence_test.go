package alerting_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/alerting"
	"sallyport/allowlists"
)

// TestFullTablesHideNothing fills every table that a job can fill, from one
// pool, and then lets a client of another pool, and another client of the same,
// do what raises each kind of alert.
func TestFullTablesHideNothing(t *testing.T) {
	of := func(i int) func(*alerting.Event) {
		return func(e *alerting.Event) {
			e.Client = netip.AddrFrom4([4]byte{10, byte(30 + i>>16), byte(i >> 8), byte(i)})
		}
	}
	for _, c := range []struct {
		what string
		fill func(r *running)
	}{
		{"4,200 groups of a client each", func(r *running) {
			for i := range 4200 {
				r.Take(now(connect("203.0.113.9", 443, of(i))))
				r.Take(now(question(fmt.Sprintf("h%d.example", i), of(i))))
			}
		}},
		{"1,100 critical groups", func(r *running) {
			for i := range 1100 {
				r.Take(now(question("evil.example", quiet, of(i))))
				r.Take(now(connect("203.0.113.9", 443, of(i))))
			}
		}},
		{"refused names of 9,000 clients", func(r *running) {
			for i := range 9000 {
				r.Take(now(question("evil.example", quiet, of(i))))
			}
		}},
		{"70,000 destinations in folds", func(r *running) {
			for i := range 70_000 {
				r.Take(now(question(fmt.Sprintf("h%d.example", i), of(i/4000))))
			}
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := runCorrelator(t, alerting.CorrelatorSetup{Alerts: toWebhook()}, nil)
				defer r.stop()
				c.fill(r)
				time.Sleep(3 * time.Second)
				for pool, client := range map[string]string{"deploy": "10.99.0.1", "build": "10.98.0.1"} {
					as := func(e *alerting.Event) { e.Pool, e.Client = pool, netip.MustParseAddr(client) }
					r.Take(now(question("drop.example", as)))
					r.Take(now(connect("203.0.113.77", 443, as)))                                  // denied-then-direct
					r.Take(now(connect("169.254.169.254", 80, special, as)))                       // metadata-access, critical
					r.Take(now(question("dns.example", reason(allowlists.ResolverBypass), as)))    // foreign-resolver
					r.Take(now(connect("front.example", 443, reason(allowlists.SNIMismatch), as))) // sni-mismatch
				}
				time.Sleep(10 * time.Minute)
				told := make(map[string]int)
				_, bodies := r.got()
				for _, p := range readPosts(t, bodies) {
					for _, a := range p.Alerts {
						told[a.Pool+" "+a.Alert] += a.New
					}
				}
				for _, alert := range []string{"denied-then-direct", "metadata-access", "foreign-resolver", "sni-mismatch", "denied-egress"} {
					if told["deploy "+alert] != 1 {
						t.Errorf("another pool's %s is told %d times", alert, told["deploy "+alert])
					}
					if told["build "+alert] < 1 {
						t.Errorf("another client's %s is not told of", alert)
					}
				}
				all := strings.Join(bodies, "")
				for _, client := range []string{"10.99.0.1"} {
					if !strings.Contains(all, client) {
						t.Errorf("no message names %s", client)
					}
				}
			})
		})
	}
}

// TestAPoisonedBaselineHidesFirstSeenOnly teaches the baseline destinations as
// an attacker with many jobs and much time may, and then uses them.
func TestAPoisonedBaselineHidesFirstSeenOnly(t *testing.T) {
	t.Parallel()
	c := newCorrelator(t, learning(0, 0))
	for run := range 50 {
		for _, to := range []string{"drop.example", "dns.example"} {
			c.Take(reached(to, job(fmt.Sprint(run))))
		}
	}
	c.Take(question("drop.example"))
	c.Take(question("dns.example", reason(allowlists.ResolverBypass)))
	c.Take(connect("drop.example", 443, reason(allowlists.SNIMismatch)))
	c.Take(connect("169.254.169.254", 80, special))
	for _, alert := range []string{alerting.AlertDeniedEgress, alerting.AlertForeignResolver, alerting.AlertSNIMismatch, alerting.AlertMetadataAccess} {
		if find(t, c, alert).Count == 0 {
			t.Errorf("no %s", alert)
		}
	}
}
