package firewall_test

import (
	"context"
	"encoding/json"
	"io"
	"net/netip"
	"strings"
	"testing"

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
		{"no question comes", arrives(true, false), []string{"0 of 4 questions"}},
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
			four.DNS, four.Name = r.DNS[:1], r.Name
			reply.NoWay = append(reply.NoWay, r.DNS[1], r.DNS[1])
			arrives(true, true)(p, four)
			return reply
		}, nil},
		{"nothing has a route", func(_ *firewall.Prober, r firewall.ProbeRequest) firewall.ProbeReply {
			return firewall.ProbeReply{NoWay: append(append(append([]netip.AddrPort{}, r.TCP...), r.DNS...), r.DNS...)}
		}, []string{"no route"}},
	} {
		t.Run(row.says, func(t *testing.T) {
			childIn, in := io.Pipe()
			out, childOut := io.Pipe()
			p := firewall.NewProber(in, out)
			go func() {
				var request firewall.ProbeRequest
				if json.NewDecoder(childIn).Decode(&request) == nil {
					_ = json.NewEncoder(childOut).Encode(row.child(p, request))
				}
			}()
			faults, err := p.Round(context.Background(), true, true, nil)
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
