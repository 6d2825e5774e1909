package alerting_test

import (
	"fmt"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/alerting"
	"sallyport/allowlists"
	"sallyport/dnsfilter"
	"sallyport/proxy"
)

// A storm is a load of records, as many clients of four pools make them at
// once. Of ten clients six are refused names, a question for each family and a
// connection; three reach names under a wildcard and carry bytes; one dials
// addresses that no answer gave. Each turn of a client is three records.
type storm struct {
	lasts        time.Duration
	perMinute    int // records
	destinations int // distinct
	clients      int
	probeEvery   time.Duration // between two probes
}

// turnRecords are the records of one turn.
const turnRecords = 3

// stormPools are the pools of the clients, in turn.
var stormPools = [...]string{"build", "deploy", "nightly", "test"}

// stormKinds are what a client does, by its number modulo ten.
const (
	stormRefused = 6 // below: names refused
	stormReached = 9 // below: names reached; else addresses dialled
)

// sent counts what a storm sent.
type sent struct {
	records atomic.Int64 // dns and conn lines there must be, those of probes too
	turns   [3]atomic.Int64
	probes  sync.Map // client address as text -> time.Time just before its last record
	probed  atomic.Int64
}

// send drives a storm into a until it is over.
func (s storm) send(t testing.TB, a *alerting.Alerting) *sent {
	t.Helper()
	out := &sent{}
	interval := time.Duration(int64(time.Minute) * turnRecords * int64(s.clients) / int64(s.perMinute))
	begun := time.Now()
	var all sync.WaitGroup
	for n := range s.clients {
		all.Go(func() {
			phase := interval * time.Duration(n) / time.Duration(s.clients)
			timer := time.NewTimer(phase)
			defer timer.Stop()
			for i := 0; ; i++ {
				<-timer.C
				if time.Since(begun) >= s.lasts {
					return
				}
				s.turn(a, out, n, i)
				timer.Reset(time.Until(begun.Add(phase + interval*time.Duration(i+1)))) // late turns are made good
			}
		})
	}
	all.Go(func() { s.probe(a, out, begun) })
	all.Wait()
	return out
}

// turn is the i-th turn of client n.
func (s storm) turn(a *alerting.Alerting, out *sent, n, i int) {
	now := time.Now()
	sub := allowlists.Subject{Client: netip.AddrFrom4([4]byte{10, 20, byte(n >> 8), byte(n)}), Pool: stormPools[n%len(stormPools)], Iface: "br-build"}
	serial := n + i*s.clients // of this turn
	destination := serial % s.destinations
	id := func(k int) string { return recordID(serial*turnRecords + k) }
	out.records.Add(turnRecords)
	switch kind := n % 10; {
	case kind < stormRefused:
		out.turns[0].Add(1)
		name := fmt.Sprintf("d%06d.example", destination)
		host, _ := allowlists.ParseHost(name)
		for k, family := range []uint16{1, 28} {
			a.ObserveQuery(dnsfilter.QueryRecord{
				ID: id(k), Time: now, Subject: sub, Generation: 1, By: dnsfilter.ByClient, Name: name, Host: host, Type: family,
				Decision: allowlists.Decision{Reason: allowlists.NotInAllowlist}, RCode: 3, Took: 100 * time.Microsecond,
			})
		}
		a.ObserveConn(proxy.ConnRecord{
			ID: id(2), Time: now, Subject: sub, Generation: 1, Phase: proxy.PhaseRefused, Via: proxy.ViaConnect, Host: name, Port: 443,
			ClientPort: 40000, Method: "CONNECT", Decision: allowlists.Decision{Reason: allowlists.NotInAllowlist}, Took: 200 * time.Microsecond,
		})
	case kind < stormReached:
		out.turns[1].Add(1)
		name := fmt.Sprintf("d%06d.example", destination)
		host, _ := allowlists.ParseHost(name)
		addr := netip.AddrFrom4([4]byte{198, 51, byte(destination >> 8), byte(destination)})
		a.ObserveQuery(dnsfilter.QueryRecord{
			ID: id(0), Time: now, Subject: sub, Generation: 1, By: dnsfilter.ByProxy, Name: name, Host: host, Type: 1,
			Decision: allowlists.Decision{Verdict: allowlists.Allow, Reason: allowlists.Allowed}, Answers: []netip.Addr{addr},
			Upstream: "udp://10.0.0.2:53", TTL: time.Minute, Took: 3 * time.Millisecond,
		})
		conn := proxy.ConnRecord{
			ID: id(1), Time: now, Subject: sub, Generation: 1, Phase: proxy.PhaseOpen, Via: proxy.ViaConnect, Host: name, Port: 443, Addr: addr,
			ClientPort: 40000, Method: "CONNECT", DNSIDs: []string{id(0)}, Names: []string{name},
			Decision: allowlists.Decision{Verdict: allowlists.Allow, Reason: allowlists.Allowed}, Took: 5 * time.Millisecond,
		}
		a.ObserveConn(conn)
		conn.Phase, conn.SNI, conn.Sent, conn.Received, conn.Took = proxy.PhaseClose, name, 700, 90_000, time.Second
		conn.ID = id(2) // of a connection of its own, so that each line has an id
		a.ObserveConn(conn)
	default:
		out.turns[2].Add(1)
		for k := range turnRecords {
			a.ObserveConn(proxy.ConnRecord{
				ID: id(k), Time: now, Subject: sub, Generation: 1, Phase: proxy.PhaseRefused, Via: proxy.ViaTCP, Port: uint16(443 + k),
				Addr: netip.AddrFrom4([4]byte{203, byte(destination >> 16), byte(destination >> 8), byte(destination)}), ClientPort: 40000,
				Decision: allowlists.Decision{Reason: allowlists.AddressMismatch}, Took: time.Millisecond,
			})
		}
	}
}

// probeBase is the serial number of the first record of a probe.
const probeBase = 1 << 24

// probe sends, each from a client of its own, a refused name and then a
// connection straight to an address: denied-then-direct, in a new critical group.
func (s storm) probe(a *alerting.Alerting, out *sent, begun time.Time) {
	ticker := time.NewTicker(s.probeEvery)
	defer ticker.Stop()
	for i := 0; ; i++ {
		<-ticker.C
		if time.Since(begun) >= s.lasts {
			return
		}
		sub := allowlists.Subject{Client: netip.AddrFrom4([4]byte{10, 99, byte(i >> 8), byte(i)}), Pool: "probe"}
		out.records.Add(2)
		out.probed.Add(1)
		host, _ := allowlists.ParseHost("probe.example")
		a.ObserveQuery(dnsfilter.QueryRecord{
			ID: recordID(probeBase + 2*i), Time: time.Now(), Subject: sub, By: dnsfilter.ByClient, Name: host.String(), Host: host, Type: 1,
			Decision: allowlists.Decision{Reason: allowlists.NotInAllowlist}, RCode: 3,
		})
		out.probes.Store(sub.Client.String(), time.Now())
		a.ObserveConn(proxy.ConnRecord{
			ID: recordID(probeBase + 2*i + 1), Time: time.Now(), Subject: sub, Phase: proxy.PhaseRefused, Via: proxy.ViaTCP, Port: 443,
			Addr: netip.MustParseAddr("203.0.113.66"), Decision: allowlists.Decision{Reason: allowlists.AddressMismatch},
		})
	}
}

// recordID writes a serial number as an id of twelve characters.
func recordID(serial int) string {
	text := strconv.FormatInt(int64(serial), 10)
	return "r00000000000"[:12-len(text)] + text
}
