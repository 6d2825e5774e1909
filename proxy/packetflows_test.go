package proxy

import (
	"net/netip"
	"testing"
	"time"
)

func TestPacketFlowsAreForgottenAndBounded(t *testing.T) {
	f := newPacketFlows()
	now := time.Unix(1700000000, 0)
	flow := func(i int) packetFlow {
		client := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		return packetFlow{pool: []string{"a", "b", "c"}[i%3], client: client, protocol: 17}
	}
	entered := 0
	for i := range 2 * maxPacketFlows {
		if f.enter(flow(i), now) == PacketRecorded {
			entered++
		}
	}
	if entered != maxPacketFlows {
		t.Errorf("%d flows are remembered, want %d", entered, maxPacketFlows)
	}
	if got := f.enter(flow(0), now.Add(packetWindow-1)); got != PacketRepeated {
		t.Errorf("a flow in its window is %s", got)
	}
	if got := f.enter(flow(0), now.Add(packetWindow)); got != PacketRecorded {
		t.Errorf("a flow after its window is %s", got)
	}
	if len(f.known) != 1 || len(f.queue) != 1 || len(f.pools) != 1 || len(f.clients) != 1 {
		t.Errorf("%d flows, %d ends, %d pools, %d clients are left, want 1 each", len(f.known), len(f.queue), len(f.pools), len(f.clients))
	}
}

func TestAPoolHasHalfOfTheFlows(t *testing.T) {
	f := newPacketFlows()
	now := time.Unix(1700000000, 0)
	for i := range maxPacketFlows {
		f.enter(packetFlow{pool: "a", client: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})}, now)
	}
	if got := f.enter(packetFlow{pool: "b", client: netip.MustParseAddr("10.0.0.1")}, now); got != PacketRecorded || f.pools["a"] != maxPacketFlows/2 {
		t.Errorf("beside a pool that floods, another has %s; the first has %d flows", got, f.pools["a"])
	}
}
