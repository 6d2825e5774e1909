package hindsight

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"sallyport/alerting/foreignlog"
	"sallyport/allowlists"
)

// TestBoundsHold presses more into book, sessions and copies than they hold.
func TestBoundsHold(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	b := newBook(1000)
	for i := range 5000 {
		host, err := allowlists.ParseHost(fmt.Sprintf("host%d.example", i))
		if err != nil {
			t.Fatal(err)
		}
		addr := netip.AddrFrom4([4]byte{93, 184, byte(i % 3000 >> 8), byte(i % 3000)})
		b.add("build", host, "id", []netip.Addr{addr}, at.Add(time.Duration(i)*time.Second), at.Add(time.Hour))
		for range 20 { // one address with ever more names
			b.add("build", host, "id", []netip.Addr{netip.AddrFrom4([4]byte{1, 1, 1, 1})}, at, at.Add(time.Hour))
		}
	}
	total := 0
	for _, c := range b.cells {
		total += len(c.names)
	}
	if b.names > 1000 || total != b.names || b.order.Len() != len(b.cells) {
		t.Errorf("the book of 1,000 names has %d, counted as %d, in %d and %d cells", total, b.names, b.order.Len(), len(b.cells))
	}
	if n := len(b.at("build", netip.AddrFrom4([4]byte{1, 1, 1, 1}), at, 0)); n != maxNames {
		t.Errorf("one address has %d names", n)
	}

	s := newSessions()
	for i := range maxSessions + 500 {
		known, fresh := s.add(&foreignlog.Conn{UID: fmt.Sprint(i), Part: foreignlog.Hello}, at, "id")
		if !fresh {
			t.Fatal("a new connection is not fresh")
		}
		known.judged = true
		s.judged(known)
	}
	if len(s.byUID) > maxSessions || s.done.Len() > maxSessions {
		t.Errorf("%d connections are remembered", len(s.byUID))
	}
	alone := 0
	for i := range 3 * maxRequests {
		known, fresh := s.add(&foreignlog.Conn{UID: "many", Part: foreignlog.Request}, at, "id")
		if fresh && i > 0 {
			alone++
		}
		if len(known.requests) > maxRequests {
			t.Fatalf("%d requests wait together", len(known.requests))
		}
	}
	if alone != 2*maxRequests {
		t.Errorf("%d requests were judged alone", alone)
	}

	c := newCopies()
	for i := range 3 * maxCopies {
		c.has(uint64(i+1), at, 0)
	}
	if len(c.seen) > maxCopies {
		t.Errorf("%d lines are remembered", len(c.seen))
	}
}
