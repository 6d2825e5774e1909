package firewall_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"sallyport/proxy/firewall"
)

// TestProberCountsWhatComes has a child whose probes come to our listeners, or
// do not.
func TestProberCountsWhatComes(t *testing.T) {
	for _, row := range []struct {
		says  string
		child func(*firewall.Prober, firewall.ProbeRequest) firewall.ProbeReply
		want  []string // in the faults, in their order
	}{
		{"everything comes", arrives(true, true), nil},
		{"no question comes", arrives(true, false), []string{"0 of 8 questions"}},
		{"no connection comes", arrives(false, true), []string{"TCP to", "TCP to", "TCP to", "TCP to"}},
		{"the child sees a fault", func(p *firewall.Prober, r firewall.ProbeRequest) firewall.ProbeReply {
			reply := arrives(true, true)(p, r)
			reply.Faults = []string{"UDP to 192.0.2.1:4433 was not refused"}
			return reply
		}, []string{"UDP to"}},
		{"IPv6 has no route", func(p *firewall.Prober, r firewall.ProbeRequest) firewall.ProbeReply {
			var four firewall.ProbeRequest
			var reply firewall.ProbeReply
			for _, to := range r.TCP {
				if to.Addr().Is4() {
					four.TCP = append(four.TCP, to)
				} else {
					reply.NoWay = append(reply.NoWay, to)
				}
			}
			four.DNS, four.Name = r.DNS[:3], r.Name
			reply.NoWay = append(reply.NoWay, r.DNS[3], r.DNS[3])
			arrives(true, true)(p, four)
			return reply
		}, nil},
		{"nothing has a route", func(_ *firewall.Prober, r firewall.ProbeRequest) firewall.ProbeReply {
			return firewall.ProbeReply{NoWay: append(append(append([]netip.AddrPort{}, r.TCP...), r.DNS...), r.DNS...)}
		}, []string{"no route to anywhere"}},
		{"no resolver has a route", func(p *firewall.Prober, r firewall.ProbeRequest) firewall.ProbeReply {
			arrives(true, false)(p, r)
			return firewall.ProbeReply{NoWay: append(append([]netip.AddrPort{}, r.DNS...), r.DNS...)}
		}, []string{"no route to any other resolver"}},
	} {
		t.Run(row.says, func(t *testing.T) {
			p := newProber(t, row.child)
			faults, err := p.Round(context.Background(), &bothFamilies, nil)
			if err != nil || len(faults) != len(row.want) {
				t.Fatalf("faults %q, %v", faults, err)
			}
			for i, want := range row.want {
				if !strings.Contains(faults[i], want) {
					t.Errorf("fault %q, want %q", faults[i], want)
				}
			}
			if p.Name("any"+firewall.ProbeDomain) || p.Conn(netip.MustParseAddrPort("192.0.2.1:20000")) {
				t.Error("it takes what it did not issue")
			}
		})
	}
}

// bothFamilies redirects all.
var bothFamilies = firewall.Way{TCP: firewall.Ports{V4: 3129, V6: 3129}, DNS: firewall.Ports{V4: 5300, V6: 5300}}

// newProber drives a child in this process, until the test ends.
func newProber(t *testing.T, child func(*firewall.Prober, firewall.ProbeRequest) firewall.ProbeReply) *firewall.Prober {
	childIn, in := io.Pipe()
	out, childOut := io.Pipe()
	p := firewall.NewProber(in, out)
	t.Cleanup(func() { childIn.Close(); childOut.Close() })
	go func() {
		requests := json.NewDecoder(childIn)
		for {
			var request firewall.ProbeRequest
			if requests.Decode(&request) != nil {
				return
			}
			if json.NewEncoder(childOut).Encode(child(p, request)) != nil {
				return
			}
		}
	}()
	return p
}

// TestWhatProbesTry looks at the request for each kind of plan.
func TestWhatProbesTry(t *testing.T) {
	for _, row := range []struct {
		says string
		way  firewall.Way
		want string // numbers of TCP, DNS, UDP, closed
	}{
		{"both families are redirected", bothFamilies, "4 4 4 0"},
		{"IPv6 is closed", firewall.Way{TCP: firewall.Ports{V4: 1}, DNS: firewall.Ports{V4: 1}}, "3 3 5 1"},
		{"DNS over IPv6 is closed", firewall.Way{TCP: firewall.Ports{V4: 1, V6: 1}, DNS: firewall.Ports{V4: 1}}, "4 3 5 0"},
		{"audit lets other protocols pass", firewall.Way{TCP: firewall.Ports{V4: 1, V6: 1}, DNS: firewall.Ports{V4: 1, V6: 1}, PassesOther: true}, "4 4 0 0"},
	} {
		t.Run(row.says, func(t *testing.T) {
			var got firewall.ProbeRequest
			p := newProber(t, func(p *firewall.Prober, r firewall.ProbeRequest) firewall.ProbeReply {
				got = r
				return arrives(true, true)(p, r)
			})
			if faults, err := p.Round(context.Background(), &row.way, nil); err != nil || len(faults) > 0 {
				t.Errorf("faults %q, %v", faults, err)
			}
			if n := fmt.Sprint(len(got.TCP), len(got.DNS), len(got.UDP), len(got.Closed)); n != row.want {
				t.Errorf("tries %s, want %s", n, row.want)
			}
			for _, to := range slices.Concat(got.TCP, got.DNS, got.UDP, got.Closed) {
				if !p.Issued(to) || p.Issued(netip.AddrPortFrom(to.Addr(), 1)) {
					t.Errorf("%v was issued, and port 1 of it was not", to)
				}
			}
		})
	}
}

// TestProbeThatIsHeldUp stops the child, as a job may that is allowed to send
// signals: that is a fault, never what was seen before, nor a wait for ever. What
// it says too late counts for no round.
func TestProbeThatIsHeldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := make(chan struct{})
		rounds := 0
		p := newProber(t, func(p *firewall.Prober, r firewall.ProbeRequest) firewall.ProbeReply {
			if rounds++; rounds == 1 {
				<-held
			}
			return arrives(rounds > 1, rounds > 1)(p, r)
		})
		for range 2 {
			if faults, err := p.Round(t.Context(), &bothFamilies, nil); err != nil || len(faults) != 1 || !strings.Contains(faults[0], "does not answer") {
				t.Fatalf("held up: faults %q, %v", faults, err)
			}
		}
		close(held)
		if faults, err := p.Round(t.Context(), &bothFamilies, nil); err != nil || len(faults) > 0 {
			t.Errorf("going on: faults %q, %v", faults, err)
		}
	})
}

// TestProbeThatHasEnded has no child any more.
func TestProbeThatHasEnded(t *testing.T) {
	out, childOut := io.Pipe()
	childOut.Close()
	p := firewall.NewProber(io.Discard, out)
	if _, err := p.Round(context.Background(), &bothFamilies, nil); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("error %v", err)
	}
}

// arrives is a child whose connections and questions come to us, or do not.
func arrives(tcp, dns bool) func(*firewall.Prober, firewall.ProbeRequest) firewall.ProbeReply {
	return func(p *firewall.Prober, r firewall.ProbeRequest) firewall.ProbeReply {
		for _, to := range r.TCP {
			if tcp && !p.Conn(to) || tcp && p.Conn(to) {
				return firewall.ProbeReply{Faults: []string{"a connection counts once, and once only"}}
			}
		}
		for range r.DNS {
			for range 2 { // UDP and TCP
				if dns && !p.Name(r.Name) {
					return firewall.ProbeReply{Faults: []string{"a question does not count"}}
				}
			}
		}
		return firewall.ProbeReply{}
	}
}
