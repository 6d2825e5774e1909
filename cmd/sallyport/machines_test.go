package main

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// neighboursOf reads entries such as "br-a 10.0.0.2 02".
func neighboursOf(t *testing.T, lines ...string) (all []neighbour) {
	t.Helper()
	for _, line := range lines {
		var n neighbour
		var addr string
		if _, err := fmt.Sscanf(line, "%s %s %x", &n.iface, &addr, &n.link[0]); err != nil {
			t.Fatal(err)
		}
		n.link[5] = 1
		n.addr = netip.MustParseAddr(addr)
		all = append(all, n)
	}
	return all
}

func TestMachines(t *testing.T) {
	tests := []struct {
		rule         string
		before, now  []string
		iface, asked string
		want         string
	}{
		{"one address stands for itself", nil, []string{"a 10.0.0.2 02"}, "a", "10.0.0.2", "10.0.0.2"},
		{"the lowest stands for all of a link-layer address", nil, []string{"a 10.0.0.9 02", "a 10.0.0.2 02", "a fd00::1 02"}, "a", "fd00::1", "10.0.0.2"},
		{"another link-layer address is another machine", nil, []string{"a 10.0.0.2 02", "a 10.0.0.9 04"}, "a", "10.0.0.9", "10.0.0.9"},
		{"another interface is another machine", nil, []string{"a 10.0.0.2 02", "b 10.0.0.9 02"}, "b", "10.0.0.9", "10.0.0.9"},
		{"nobody knows a client on an interface it is no neighbour of", nil, []string{"a 10.0.0.2 02"}, "b", "10.0.0.2", "invalid IP"},
		{"nobody knows a client that is no neighbour", nil, []string{"a 10.0.0.2 02"}, "a", "10.0.0.3", "invalid IP"},
		{"a lower address changes nothing", []string{"a 10.0.0.9 02"}, []string{"a 10.0.0.9 02", "a 10.0.0.2 02"}, "a", "10.0.0.2", "10.0.0.9"},
		{"giving the address up changes nothing", []string{"a 10.0.0.9 02"}, []string{"a 10.0.0.2 02"}, "a", "10.0.0.2", "10.0.0.9"},
		{"an address that went to another machine is that one's", []string{"a 10.0.0.2 02", "a 10.0.0.9 02"}, []string{"a 10.0.0.9 02", "a 10.0.0.2 04"}, "a", "10.0.0.9", "10.0.0.9"},
		{"a group's address is nobody's", nil, []string{"a 10.0.0.2 01"}, "a", "10.0.0.2", "invalid IP"},
	}
	for _, tt := range tests {
		old := newMachineTable(neighboursOf(t, tt.before...), &machineTable{})
		table := newMachineTable(neighboursOf(t, tt.now...), old)
		if got := table.names[table.byAddr[tt.iface][netip.MustParseAddr(tt.asked)]]; got.String() != tt.want {
			t.Errorf("%s: got %s", tt.rule, got)
		}
	}
}

func TestANewAddressIsSoonItsMachines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var listed []neighbour
		reads := 0
		m := newMachines(zerolog.Nop())
		m.list = func() ([]neighbour, error) { reads++; return listed, nil }
		first, second := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
		for range 1000 {
			m.of("a", second)
		}
		listed = neighboursOf(t, "a 10.0.0.2 02", "a 10.0.0.3 02")
		if got := m.of("a", second); got.IsValid() || reads != 1 {
			t.Errorf("at once: %s, after %d reads", got, reads)
		}
		time.Sleep(machinesMiss + 1) // of the test's own clock
		for range 1000 {
			if got := m.of("a", second); got != first || reads != 2 {
				t.Fatalf("soon after: %s, after %d reads", got, reads)
			}
			time.Sleep(machinesAge / 2000)
		}
	})
}

func TestMachinesAreBounded(t *testing.T) {
	var many []neighbour
	addr := netip.MustParseAddr("10.0.0.0")
	for range 2 * maxNeighbours {
		addr = addr.Next()
		many = append(many, neighbour{"a", addr, linkAddr{2}})
	}
	many = append(many, neighboursOf(t, "b 10.9.0.1 02")...)
	table := newMachineTable(many, &machineTable{})
	if n := len(table.byAddr["a"]); n != maxNeighbours || len(table.names) != 2 || len(table.byAddr["b"]) != 1 {
		t.Errorf("%d neighbours, %d machines; on the other interface %d", n, len(table.names), len(table.byAddr["b"]))
	}
}
