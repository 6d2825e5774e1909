package alerting_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/alerting"
	"sallyport/allowlists"
)

// A nameShape is one kind of name that ordinary machines ask for, how many
// different ones a machine asks for in a day, and in how many bouts.
type nameShape struct {
	from        string // where the shape is documented
	perDay      int
	bouts       int
	name        func(random *rand.Rand) string
	qtype       string
	nonexistent bool
}

// hexOf is n hexadecimal digits.
func hexOf(random *rand.Rand, n int) string { return textOf(random, n, "0123456789abcdef") }

func textOf(random *rand.Rand, n int, letters string) string {
	text := make([]byte, n)
	for i := range text {
		text[i] = letters[random.IntN(len(letters))]
	}
	return string(text)
}

const lettersAndDigits = "abcdefghijklmnopqrstuvwxyz0123456789"

// ordinaryShapes are long names that are nobody's tunnel.
var ordinaryShapes = []nameShape{
	{from: "Amazon CloudFront: distribution domain names", perDay: 60, bouts: 20, name: func(r *rand.Rand) string {
		return "d" + textOf(r, 13, lettersAndDigits) + ".cloudfront.net"
	}},
	{from: "Amazon S3: virtual-hosted-style requests", perDay: 60, bouts: 12, name: func(r *rand.Rand) string {
		return fmt.Sprintf("build-cache-%s.s3.eu-west-1.amazonaws.com", hexOf(r, 8))
	}},
	{from: "Amazon EKS: cluster endpoints", perDay: 12, bouts: 6, name: func(r *rand.Rand) string {
		return fmt.Sprintf("%s.gr7.eu-west-1.eks.amazonaws.com", hexOf(r, 32))
	}},
	{from: "Elastic Load Balancing: DNS names", perDay: 40, bouts: 10, name: func(r *rand.Rand) string {
		return fmt.Sprintf("internal-k8s-ingress-%s-%d.eu-west-1.elb.amazonaws.com", hexOf(r, 10), 100000000+r.IntN(900000000))
	}},
	{from: "Amazon EC2: public host names", perDay: 80, bouts: 16, name: func(r *rand.Rand) string {
		return fmt.Sprintf("ec2-203-0-113-%d.eu-west-1.compute.amazonaws.com", r.IntN(256))
	}},
	{from: "Akamai: edge host names", perDay: 120, bouts: 24, name: func(r *rand.Rand) string { return fmt.Sprintf("e%d.dscb.akamaiedge.net", r.IntN(99999)) }},
	{from: "GitHub: hosts that self-hosted runners reach", perDay: 40, bouts: 20, name: func(r *rand.Rand) string {
		return fmt.Sprintf("productionresultssa%d.blob.core.windows.net", r.IntN(20))
	}},
	{from: "GitHub: hosts that self-hosted runners reach", perDay: 30, bouts: 15, name: func(r *rand.Rand) string {
		return fmt.Sprintf("pipelinesghubeus%d.actions.githubusercontent.com", r.IntN(30))
	}},
	{from: "Azure Monitor: workspace endpoints", perDay: 20, bouts: 5, name: func(r *rand.Rand) string {
		return fmt.Sprintf("%s-%s-%s-%s-%s.ods.opinsights.azure.com", hexOf(r, 8), hexOf(r, 4), hexOf(r, 4), hexOf(r, 4), hexOf(r, 12))
	}},
	{from: "Google: video edge hosts", perDay: 100, bouts: 10, name: func(r *rand.Rand) string {
		return fmt.Sprintf("rr%d---sn-%s.googlevideo.com", 1+r.IntN(8), textOf(r, 10, lettersAndDigits))
	}},
	{from: "Spamhaus: how to query the zones (RFC 5782)", perDay: 2000, bouts: 100, nonexistent: true, name: func(r *rand.Rand) string {
		return fmt.Sprintf("%d.%d.%d.%d.zen.spamhaus.org", r.IntN(256), r.IntN(256), r.IntN(256), 1+r.IntN(223))
	}},
	{from: "McAfee: Global Threat Intelligence look-ups", perDay: 1500, bouts: 50, nonexistent: true, name: func(r *rand.Rand) string {
		return fmt.Sprintf("a-%d.%s.%s.avqs.mcafee.com", r.IntN(100), textOf(r, 26, lettersAndDigits), textOf(r, 26, lettersAndDigits))
	}},
	{from: "Sophos: live protection look-ups", perDay: 1000, bouts: 50, qtype: "TXT", name: func(r *rand.Rand) string {
		return fmt.Sprintf("%s.%s.w.10.s.sophosxl.net", textOf(r, 40, lettersAndDigits), textOf(r, 20, lettersAndDigits))
	}},
	{from: "RFC 1035 section 3.5: reverse look-ups", perDay: 3000, bouts: 100, qtype: "PTR", nonexistent: true, name: func(r *rand.Rand) string {
		return fmt.Sprintf("%d.%d.%d.10.in-addr.arpa", r.IntN(256), r.IntN(256), r.IntN(256))
	}},
	{from: "RFC 3596 section 2.5: reverse look-ups", perDay: 500, bouts: 20, qtype: "PTR", nonexistent: true, name: func(r *rand.Rand) string {
		return strings.Join(strings.Split(hexOf(r, 32), ""), ".") + ".ip6.arpa"
	}},
	{from: "Debian: mirrors behind the redirector", perDay: 50, bouts: 5, name: func(r *rand.Rand) string { return fmt.Sprintf("ftp%d.mirror.debian.org", r.IntN(40)) }},
	{from: "pool.ntp.org: how to use it", perDay: 8, bouts: 4, name: func(r *rand.Rand) string { return fmt.Sprintf("%d.pool.ntp.org", r.IntN(4)) }},
}

// ordinaryDay makes a machine's questions of one day, in order of time.
func ordinaryDay(client netip.Addr, seed uint64, allowed bool) (events []alerting.Event) {
	random := rand.New(rand.NewPCG(seed, 2))
	for _, shape := range ordinaryShapes {
		for bout := range shape.bouts {
			at := storyStart.Add(time.Duration(random.Int64N(int64(24 * time.Hour))))
			for range shape.perDay / shape.bouts {
				at = at.Add(time.Duration(random.Int64N(int64(10 * time.Second))))
				name := shape.name(random)
				e := alerting.Event{
					Time: at, Kind: alerting.KindDNS, ID: fmt.Sprintf("%s-%d-%d", client, bout, len(events)), Pool: "build", Client: client,
					Name: name + ".", Host: name, By: "client", Type: "A", RCode: "NXDOMAIN", Reason: allowlists.NotInAllowlist,
				}
				if shape.qtype != "" {
					e.Type = shape.qtype
				}
				if allowed {
					e.Verdict, e.Reason = allowlists.Allow, allowlists.Allowed
					if !shape.nonexistent {
						e.RCode, e.Answers = "NOERROR", []netip.Addr{netip.MustParseAddr("198.51.100.4")}
					} else {
						e.Reason = allowlists.NoSuchHost
					}
				}
				events = append(events, e)
			}
		}
	}
	slices.SortStableFunc(events, func(a, b alerting.Event) int { return a.Time.Compare(b.Time) })
	return events
}

// TestOrdinaryNamesAreNoTunnel replays a day of one machine, and of eight
// behind a gateway, allowed and refused.
func TestOrdinaryNamesAreNoTunnel(t *testing.T) {
	for _, allowed := range []bool{true, false} {
		for _, machines := range []int{1, 8} {
			t.Run(fmt.Sprintf("%d machines, allowed %v", machines, allowed), func(t *testing.T) {
				var events []alerting.Event
				for m := range machines {
					events = append(events, ordinaryDay(netip.AddrFrom4([4]byte{10, 20, 0, byte(m + 1)}), uint64(m), allowed)...)
				}
				slices.SortStableFunc(events, func(a, b alerting.Event) int { return a.Time.Compare(b.Time) })
				seen := map[string]int{}
				o, err := alerting.NewOffline(alerting.OfflineConfig{Ended: func(a alerting.Alert) {
					seen[a.Alert]++
					if a.Alert == alerting.AlertDNSTunnel {
						t.Error(a.Summary)
					}
				}})
				if err != nil {
					t.Fatal(err)
				}
				for i := range events {
					if err := o.Take(&events[i]); err != nil {
						t.Fatal(err)
					}
				}
				if err := o.Close(); err != nil {
					t.Fatal(err)
				}
				t.Logf("%d questions raised %v", len(events), seen)
				if len(events) < 5000*machines {
					t.Errorf("only %d questions", len(events))
				}
			})
		}
	}
}
