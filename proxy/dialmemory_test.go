package proxy

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// TestFailuresGoLast holds the order of candidates by what failed of late.
func TestFailuresGoLast(t *testing.T) {
	var f failures
	now := time.Unix(1_800_000_000, 0)
	may := make([]candidate, 4)
	for i := range may {
		may[i].addr = netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
	}
	order := func(port uint16, after time.Duration) (order string) {
		for _, c := range f.last(may, port, now.Add(after)) {
			order += fmt.Sprint(c.addr.As4()[3])
		}
		return order
	}
	for _, i := range []int{0, 2} {
		f.add(netip.AddrPortFrom(may[i].addr, 443), now)
	}
	for _, want := range []struct {
		port  uint16
		after time.Duration
		order string
	}{{443, 0, "1302"}, {443, failureKept - 1, "1302"}, {80, 0, "0123"}, {443, failureKept, "0123"}} {
		if got := order(want.port, want.after); got != want.order {
			t.Errorf("port %d after %v: order %s, want %s", want.port, want.after, got, want.order)
		}
	}
	for i := range 2 * maxFailures {
		f.add(netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), 443), now)
	}
	if len(f.at) != maxFailures {
		t.Errorf("%d failures are kept", len(f.at))
	}
}
