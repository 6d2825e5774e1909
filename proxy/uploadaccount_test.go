package proxy

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/allowlists"
)

// meterOf makes a meter of one connection from client to host under a limit.
func (u *uploads) meterOf(client byte, host string, limit int64) *meter {
	m := u.newMeter(meterKey{"build", uploadKey{netip.AddrFrom4([4]byte{10, 0, 0, client}), host}})
	policy, err := allowlists.NewPolicy(allowlists.PolicySpec{Pools: []allowlists.PoolSpec{{Name: "build"}}})
	if err != nil {
		panic(err)
	}
	_ = m.setRule(policy.Pool("build"), &allowlists.Rule{UploadLimit: limit})
	return m
}

// send sends what may pass of n bytes and gives how many those were.
func (m *meter) send(n int64) int64 {
	g, _ := m.take(context.Background(), n)
	m.settle(g, g.bytes)
	return g.bytes
}

// TestTheHourRolls: what was sent counts for an hour, and at most five minutes
// longer, in every hour there is.
func TestTheHourRolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUploads()
		type sending struct {
			at    time.Time
			bytes int64
		}
		var all []sending
		for step := range 400 {
			m := u.meterOf(1, "a.example", 1000)
			if n := m.send(int64(step*37%211) + 1); n > 0 {
				all = append(all, sending{time.Now(), n})
			}
			m.close()
			var hour, longer int64
			for _, s := range all {
				if ago := time.Since(s.at); ago < time.Hour {
					hour += s.bytes
				}
				if time.Since(s.at) < time.Hour+uploadSlice {
					longer += s.bytes
				}
			}
			if hour > 1000 {
				t.Fatalf("after %d steps %d bytes were sent within an hour", step, hour)
			}
			if free := u.meterOf(1, "a.example", 1000); longer < 1000 && free.send(1) != 1 {
				t.Fatalf("after %d steps %d bytes are not enough to be refused", step, longer)
			} else if longer < 1000 {
				all = append(all, sending{time.Now(), 1})
			}
			time.Sleep(time.Duration(step%13+1) * time.Minute)
		}
	})
}

// TestAccountsAreBounded: one client that sends to ever more hosts ends with
// one account for the rest of them, and takes nothing from other clients; an
// account with bytes in it is never forgotten for a newer one.
func TestAccountsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUploads()
		u.meterOf(1, "spent.example", 1000).send(1000)
		for i := range 3 * uploadAccountsPerClient {
			u.meterOf(1, fmt.Sprintf("h%d.example", i), 1000).send(900)
		}
		if n := len(u.pools["build"].accounts); n != uploadAccountsPerClient+1 {
			t.Errorf("%d accounts", n)
		}
		for says, c := range map[string]struct {
			client byte
			host   string
			want   int64
		}{
			"the first is still spent":       {1, "spent.example", 0},
			"the rest share one":             {1, "new.example", 0},
			"another client has its own":     {2, "new.example", 500},
			"and not what the first one did": {2, "spent.example", 500},
		} {
			if got := u.meterOf(c.client, c.host, 1000).send(500); got != c.want {
				t.Errorf("%s: %d bytes pass, want %d", says, got, c.want)
			}
		}
	})
}

// TestAFullPoolStillCounts: with all accounts taken each client has one for
// every host, and with those taken, too, all have one together.
func TestAFullPoolStillCounts(t *testing.T) {
	p := &poolUploads{accounts: make(map[uploadKey]*account), hosts: make(map[netip.Addr]int)}
	client := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	for i := range uploadAccounts {
		p.find(uploadKey{client(i), "a.example"})
	}
	if p.find(uploadKey{client(0), "b.example"}) != p.find(uploadKey{client(0), "c.example"}) {
		t.Error("a client has two accounts for the hosts without one")
	}
	for i := range uploadClients {
		p.find(uploadKey{client(i), "b.example"})
	}
	one, other := p.find(uploadKey{client(uploadAccounts + 1), "b.example"}), p.find(uploadKey{client(uploadAccounts + 2), "c.example"})
	if one != other || len(p.accounts) != uploadAccounts+uploadClients+1 {
		t.Errorf("%d accounts, one for the rest: %v", len(p.accounts), one == other)
	}
}

// TestASweepForgetsNoBytes: other accounts come and go for most of an hour, and
// what a closed connection sent still counts.
func TestASweepForgetsNoBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUploads()
		closed := u.meterOf(1, "closed.example", 1000)
		closed.send(990)
		closed.close()
		for i := range 5 {
			time.Sleep(2 * uploadSlice)
			u.meterOf(2, fmt.Sprintf("h%d.example", i), 1000).send(1)
		}
		if got := u.meterOf(1, "closed.example", 1000).send(100); got != 10 {
			t.Errorf("%d bytes pass, want 10", got)
		}
	})
}

// TestOldAccountsAreForgotten, but not while a connection has them open.
func TestOldAccountsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUploads()
		closed, open := u.meterOf(1, "closed.example", 1000), u.meterOf(1, "open.example", 1000)
		closed.send(10)
		closed.close()
		open.send(10)
		time.Sleep(time.Hour + 2*uploadSlice)
		u.meterOf(2, "new.example", 1000)
		p := u.pools["build"]
		if len(p.accounts) != 2 || p.own != 2 || len(p.hosts) != 2 {
			t.Errorf("%d accounts are left, %d of hosts, of %d clients", len(p.accounts), p.own, len(p.hosts))
		}
		if got := u.meterOf(1, "open.example", 1000).account; got != open.account {
			t.Error("an account that is open was forgotten")
		}
	})
}

// TestHeldBytesComeBack: a connection that meets what another holds waits for
// it, gets what is given back, and is denied the rest; one that holds on is
// waited for a moment only.
func TestHeldBytesComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUploads()
		stalled, other := u.meterOf(1, "a.example", 1_000_000), u.meterOf(1, "a.example", 1_000_000)
		g := stalled.speculate(spliceBytes)
		if g.bytes != 1_000_000/speculativePart {
			t.Fatalf("a splice holds %d bytes", g.bytes)
		}
		go func() {
			time.Sleep(heldWait / 2)
			stalled.settle(g, 25_000)
		}()
		if n := other.send(980_000); n != 975_000 {
			t.Errorf("%d bytes pass, want all but those that the other sent", n)
		}
		third := u.meterOf(1, "b.example", 1_000_000)
		held, began := third.speculate(spliceBytes), time.Now()
		if n := u.meterOf(1, "b.example", 1_000_000).send(1_000_000); n != 1_000_000-held.bytes || time.Since(began) != heldWait {
			t.Errorf("%d bytes pass after %v", n, time.Since(began))
		}
	})
}

// TestNobodySpeculatesNearTheEnd, nor while somebody waits.
func TestNobodySpeculatesNearTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUploads()
		m := u.meterOf(1, "a.example", speculativePart*copyBuffer)
		if g := m.speculate(spliceBytes); g.bytes != copyBuffer {
			t.Errorf("%d bytes", g.bytes)
		} else {
			m.settle(g, 1)
		}
		if g := m.speculate(spliceBytes); g.bytes != 0 {
			t.Errorf("%d bytes near the end", g.bytes)
		}
		if m.account.held != 0 {
			t.Errorf("%d bytes stay held", m.account.held)
		}
		if g := (*meter)(nil).speculate(spliceBytes); g.bytes != spliceBytes {
			t.Error("without a meter there is a limit")
		}
		one, two := u.meterOf(1, "b.example", 1_000_000), u.meterOf(1, "b.example", 1_000_000)
		held := one.speculate(spliceBytes)
		go two.send(1_000_000)
		synctest.Wait()
		if g := one.speculate(spliceBytes); g.bytes != 0 {
			t.Errorf("%d bytes are taken from under one that waits", g.bytes)
		}
		one.settle(held, 0)

		// The hour has forgotten what the connection itself has not.
		long := u.meterOf(1, "c.example", 10_000_000)
		long.send(9_900_000)
		time.Sleep(2 * time.Hour)
		if g := long.speculate(spliceBytes); g.bytes != 0 {
			t.Errorf("%d bytes may come, of 100,000 that the connection has left", g.bytes)
		}
	})
}

// TestALimitThatComesWhileBytesAreUnderWay: what was granted before it was
// lowered, and is settled behind it, is too much.
func TestALimitThatComesWhileBytesAreUnderWay(t *testing.T) {
	m := newUploads().meterOf(1, "a.example", 10_000)
	g, err := m.take(t.Context(), 5000)
	if err != nil || g.bytes != 5000 {
		t.Fatalf("%d bytes, %v", g.bytes, err)
	}
	lower := &allowlists.Rule{UploadLimit: 4000}
	if err := m.setRule(m.pool, lower); err != nil {
		t.Errorf("nothing was sent yet: %v", err)
	}
	m.settle(g, 5000)
	if err := m.passed(); !isDenied(err) {
		t.Errorf("5000 of 4000 bytes are sent: %v", err)
	}
	if err := m.setRule(m.pool, &allowlists.Rule{UploadLimit: 5000}); err != nil || m.passed() != nil {
		t.Errorf("5000 of 5000 bytes: %v, %v", err, m.passed())
	}
}
