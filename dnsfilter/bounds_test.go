package dnsfilter

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sallyport/allowlists"
)

// addrN is the nth of many distinct addresses.
func addrN(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{93, byte(n >> 16), byte(n >> 8), byte(n)})
}

func hostN(t testing.TB, n int) allowlists.Host {
	t.Helper()
	h, err := allowlists.ParseHost(fmt.Sprintf("n%d.example", n))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func anyHost(allowlists.Host) bool { return true }

// checkBook holds the book's totals against what it holds.
func checkBook(t *testing.T, b *book) {
	t.Helper()
	total := 0
	for name, p := range b.pools {
		inPool, listed := 0, 0
		for _, c := range p.cells {
			inPool += len(c.names)
		}
		for _, list := range p.byAddr {
			listed += len(list)
		}
		byClient := 0
		for _, c := range p.clients {
			byClient += c.names
		}
		if inPool != p.names || byClient != p.names || listed != len(p.cells) || p.oldest.Len() != len(p.cells) || p.name != name || inPool == 0 {
			t.Fatalf("pool %s: %d names, %d counted, %d by client; %d cells, %d by address", name, inPool, p.names, byClient, len(p.cells), listed)
		}
		total += inPool
	}
	if total != b.names || total > b.limit {
		t.Fatalf("%d names, %d counted, limit %d", total, b.names, b.limit)
	}
}

func TestTheBookIsBoundedAndFair(t *testing.T) {
	b := newBook(1000)
	now := time.Now()
	later := now.Add(time.Hour)
	quiet, other, noisy := account{"a", addrN(1)}, account{"b", addrN(2)}, account{"b", addrN(3)}
	for i := range 100 {
		b.add(quiet, hostN(t, i), []netip.Addr{addrN(i)}, now, later)
		b.add(other, hostN(t, i), []netip.Addr{addrN(i)}, now, later)
	}
	for i := range 5000 {
		b.add(noisy, hostN(t, i), []netip.Addr{addrN(i)}, now, later)
		if i%100 == 0 {
			checkBook(t, b)
		}
	}
	checkBook(t, b)
	for i := range 100 {
		if hosts, _ := b.lookup(quiet, addrN(i), now, anyHost); len(hosts) != 1 {
			t.Fatalf("another pool lost answer %d: %v", i, hosts)
		}
		if hosts, _ := b.lookup(other, addrN(i), now, anyHost); len(hosts) == 0 || hosts[0] != hostN(t, i) {
			t.Fatalf("another client of the pool lost answer %d: %v", i, hosts)
		}
	}
	if names, evicted := b.sizes(); names != 1000 || evicted != 4200 {
		t.Errorf("%d names, %d evicted", names, evicted)
	}
	for i := range 5000 { // the other pool asks now, and gets its half
		b.add(quiet, hostN(t, i), []netip.Addr{addrN(i)}, now, later)
	}
	checkBook(t, b)
	if n := b.pools["b"].names; n < 499 || n > 501 {
		t.Errorf("the pools share the book as %d and %d", b.pools["a"].names, n)
	}
}

func TestTheBookKeepsWhatWasJustWritten(t *testing.T) {
	b := newBook(1)
	now := time.Now()
	for i := range 500 {
		by := account{fmt.Sprint("pool", i%7), addrN(i % 11)}
		b.add(by, hostN(t, i), []netip.Addr{addrN(i % 13)}, now, now.Add(time.Hour))
		checkBook(t, b)
		if hosts, _ := b.lookup(by, addrN(i%13), now, anyHost); len(hosts) == 0 || hosts[0] != hostN(t, i) {
			t.Fatalf("answer %d is gone: %v", i, hosts)
		}
	}
}

func TestTheBookKeepsFewNamesOfOneAddress(t *testing.T) {
	b := newBook(1000)
	now := time.Now()
	by := account{"a", addrN(1)}
	for i := range 200 {
		b.add(by, hostN(t, i), []netip.Addr{addrN(1)}, now, now.Add(time.Hour))
	}
	checkBook(t, b)
	if names, evicted := b.sizes(); names != maxNames || evicted != 0 {
		t.Errorf("%d names are kept", names)
	}
}

func TestTheBookForgetsInTime(t *testing.T) {
	b := newBook(1000)
	now := time.Now()
	by := account{"a", addrN(1)}
	b.add(by, hostN(t, 1), []netip.Addr{addrN(1)}, now, now.Add(time.Minute))
	b.add(by, hostN(t, 2), []netip.Addr{addrN(1)}, now, now.Add(time.Hour))
	if hosts, ttl := b.lookup(by, addrN(1), now.Add(time.Minute), anyHost); len(hosts) != 1 || hosts[0] != hostN(t, 2) || ttl != 59*time.Minute {
		t.Errorf("got %v for %s", hosts, ttl)
	}
	b.keepOnly(now.Add(2*time.Minute), func(string, allowlists.Host) bool { return true })
	checkBook(t, b)
	if names, _ := b.sizes(); names != 1 {
		t.Errorf("%d names are left", names)
	}
	b.keepOnly(now, func(string, allowlists.Host) bool { return false })
	if names, _ := b.sizes(); names != 0 || len(b.pools) != 0 {
		t.Errorf("%d names in %d pools are left", names, len(b.pools))
	}
}

// oneAddr is an answer with one address.
func oneAddr(name string, ttl uint32) answer {
	return answer{
		records: []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: name + ".", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: ttl}, A: []byte{93, 1, 1, 1}}},
		ttl:     time.Duration(ttl) * time.Second,
	}
}

func TestTheCacheIsBoundedInEntriesAndBytes(t *testing.T) {
	now := time.Now()
	for _, c := range []*cache{newCache(50, 1<<30, 0), newCache(1<<30, 500_000, 0)} {
		for i := range 5000 {
			name := hostN(t, i).String()
			c.put(flightKey{name: name, qtype: dns.TypeA}, oneAddr(name, 60), "up", now)
			c.get(flightKey{name: "n0.example", qtype: dns.TypeA}, now)
		}
		sum := 0
		for e := c.used.Front(); e != nil; e = e.Next() {
			sum += e.Value.(*cached).size()
		}
		if c.entries() > 2000 || c.entries() > c.maxEntries || sum != c.bytes || sum > c.maxBytes || c.used.Len() != c.entries() {
			t.Errorf("%d entries of %d bytes, counted %d", c.entries(), sum, c.bytes)
		}
		if _, entry := c.get(flightKey{name: "n0.example", qtype: dns.TypeA}, now); entry == nil {
			t.Error("what is used all the time has gone")
		}
	}
}

func TestTheCacheCountsDown(t *testing.T) {
	now := time.Now()
	c := newCache(10, 1<<20, time.Hour)
	key := flightKey{name: "n1.example", qtype: dns.TypeA}
	c.put(key, oneAddr("n1.example", 60), "up", now)
	if a, entry := c.get(key, now.Add(20*time.Second)); entry == nil || a.records[0].Header().Ttl != 40 {
		t.Errorf("after 20 s: %v", a)
	}
	if _, entry := c.get(key, now.Add(time.Minute)); entry != nil {
		t.Error("an answer outlived its TTL")
	}
	if _, _, ok := c.getStale(key, now.Add(time.Hour)); !ok {
		t.Error("a stale answer was not kept")
	}
	if _, _, ok := c.getStale(key, now.Add(time.Hour+time.Minute)); ok || c.entries() != 0 {
		t.Error("a stale answer was kept too long")
	}
	c.put(key, oneAddr("n1.example", 0), "up", now)
	if c.entries() != 0 {
		t.Error("an answer with TTL 0 was kept")
	}
}

func TestFollowsAreBounded(t *testing.T) {
	fs := newFollows()
	now := time.Now()
	for i := range 3 * maxFollows {
		fs.add("a", follow{target: hostN(t, i), asker: hostN(t, 0), expires: now.Add(time.Minute)})
	}
	fs.add("b", follow{target: hostN(t, 1), asker: hostN(t, 0), expires: now.Add(time.Minute)})
	if n := len(fs.pools["a"].byTarget); n != maxFollows || fs.pools["a"].oldest.Len() != n {
		t.Errorf("%d targets are remembered", n)
	}
	if _, ok := fs.asker("a", hostN(t, 3*maxFollows-1), now); !ok {
		t.Error("the newest is gone")
	}
	if _, ok := fs.asker("a", hostN(t, 3*maxFollows-1), now.Add(time.Minute)); ok {
		t.Error("a target outlived its time")
	}
	fs.keepOnly(now.Add(time.Hour), func(string, allowlists.Host) bool { return true })
	if len(fs.pools) != 0 {
		t.Error("targets are kept after their time")
	}
}

func TestRatesAreBounded(t *testing.T) {
	r := newRates(10, 100)
	now := time.Now()
	for i := range 1000 {
		r.take(rateKey{client: addrN(i)}, now)
	}
	if len(r.byClient) != 100 || r.heard.Len() != 100 {
		t.Errorf("%d clients are remembered", len(r.byClient))
	}
	passed := 0
	for range 100 {
		if r.take(rateKey{client: addrN(5000)}, now) {
			passed++
		}
	}
	if passed != 10 {
		t.Errorf("%d of 100 passed", passed)
	}
	if !r.take(rateKey{pool: "other", client: addrN(5000)}, now) {
		t.Error("a client that is in two pools uses up its rate in both")
	}
	if !r.take(rateKey{client: addrN(5000)}, now.Add(100*time.Millisecond)) || r.take(rateKey{client: addrN(5000)}, now.Add(100*time.Millisecond)) {
		t.Error("a tenth of a second is not worth one question")
	}
}

func TestSharesAreFair(t *testing.T) {
	s := newShares(80)
	take := func(by account) (n int) {
		for s.enter(by) {
			n++
		}
		return n
	}
	if n := take(account{"a", addrN(1)}); n != 10 {
		t.Errorf("one client took %d of 80", n)
	}
	for i := range 10 {
		take(account{"a", addrN(i)})
	}
	if s.held != 40 {
		t.Errorf("one pool took %d of 80", s.held)
	}
	if n := take(account{"b", addrN(1)}); n != 10 {
		t.Errorf("a client of another pool took %d", n)
	}
	for range 10 {
		s.leave(account{"b", addrN(1)})
	}
	for i := range 10 {
		for s.clients[account{"a", addrN(i)}] > 0 {
			s.leave(account{"a", addrN(i)})
		}
	}
	if s.held != 0 || len(s.pools) != 0 || len(s.clients) != 0 {
		t.Errorf("%d are held by %v and %v", s.held, s.pools, s.clients)
	}
}

func TestTurnsWaitAndAreForgotten(t *testing.T) {
	turns := newTurns(16)
	by := account{"a", addrN(1)}
	ctx, cancel := context.WithCancel(context.Background())
	for range 2 {
		if !turns.take(ctx, by) {
			t.Fatal("no turn")
		}
	}
	third := make(chan bool)
	go func() { third <- turns.take(ctx, by) }()
	if !turns.take(ctx, account{"a", addrN(2)}) {
		t.Error("another client waits too")
	}
	select {
	case <-third:
		t.Error("a third turn was given")
	default:
	}
	turns.giveBack(by)
	if !<-third {
		t.Error("a free turn was not given")
	}
	cancel()
	if turns.take(ctx, by) {
		t.Error("a turn was given after its time")
	}
	turns.giveBack(by)
	turns.giveBack(by)
	turns.giveBack(account{"a", addrN(2)})
	if len(turns.pools) != 0 || len(turns.clients) != 0 {
		t.Errorf("%v and %v are remembered", turns.pools, turns.clients)
	}
}
