package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/allowlists"
)

// TestRelayTimers holds idle time and progress by the clock.
func TestRelayTimers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, near := net.Pipe()
		far, target := net.Pipe()
		var progress []int64
		r := &relay{client: near, upstream: far, idle: 10 * time.Minute, every: time.Minute, onProgress: func(sent, _ int64) { progress = append(progress, sent) }}
		began := time.Now()
		done := make(chan error, 1)
		go func() { done <- r.run(context.Background(), nil) }()
		go func() { _, _ = io.Copy(io.Discard, target) }()
		time.Sleep(5 * time.Minute)
		_, _ = client.Write([]byte("abc"))
		err := <-done
		if denialOf := asDenial(err, nil); denialOf.Decision.Reason != allowlists.TimedOut || !errors.Is(err, errIdle) {
			t.Errorf("ended with %v", err)
		}
		if took := time.Since(began); took != 15*time.Minute {
			t.Errorf("ended after %v, want 10 minutes after the last byte", took)
		}
		if len(progress) < 13 || progress[0] != 0 || progress[len(progress)-1] != 3 {
			t.Errorf("progress %v", progress)
		}
		for _, c := range []net.Conn{client, near, far, target} {
			_ = c.Close()
		}
	})
}

// TestRelayEndsWithItsContext cancels a relay on which nothing moves.
func TestRelayEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, near := net.Pipe()
		far, target := net.Pipe()
		ctx, cancel := context.WithCancelCause(context.Background())
		why := refusal(allowlists.Decision{Reason: allowlists.PolicyChanged}, nil)
		time.AfterFunc(time.Second, func() { cancel(why) })
		r := &relay{client: near, upstream: far, idle: time.Hour}
		if err := r.run(ctx, nil); err != error(why) {
			t.Errorf("ended with %v", err)
		}
		for _, c := range []net.Conn{client, near, far, target} {
			_ = c.Close()
		}
	})
}

// TestRelayContainsPanics panics on each side of a relay.
func TestRelayContainsPanics(t *testing.T) {
	for _, side := range []string{"sent", "received"} {
		synctest.Test(t, func(t *testing.T) {
			client, near := net.Pipe()
			far, target := net.Pipe()
			boom := func(int) { panic("boom") }
			r := &relay{client: near, upstream: far, idle: time.Hour}
			if side == "sent" {
				r.onSent = boom
				go func() { _, _ = client.Write([]byte("x")); _, _ = io.Copy(io.Discard, client) }()
				go func() { _, _ = io.Copy(io.Discard, target) }()
			} else {
				r.onReceived = boom
				go func() { _, _ = target.Write([]byte("x")); _, _ = io.Copy(io.Discard, target) }()
				go func() { _, _ = io.Copy(io.Discard, client) }()
			}
			func() {
				defer func() {
					if p := recover(); (p != nil) != (side == "sent") {
						t.Errorf("%s: panic %v", side, p)
					}
				}()
				if err := r.run(context.Background(), nil); !errors.Is(err, errPanic) {
					t.Errorf("%s: ended with %v", side, err)
				}
			}()
			for _, c := range []net.Conn{client, near, far, target} {
				_ = c.Close()
			}
		})
	}
}

// TestControlLooksOnceMore gives the dialer addresses that were not judged, or
// are judged differently now: no socket may connect.
func TestControlLooksOnceMore(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	pattern, err := allowlists.ParsePattern("bind.example")
	if err != nil {
		t.Fatal(err)
	}
	policy, err := allowlists.NewPolicy(allowlists.PolicySpec{Pools: []allowlists.PoolSpec{{Name: "build", Allow: []allowlists.Rule{{Host: pattern, Ports: allowlists.AllPorts()}}}}})
	if err != nil {
		t.Fatal(err)
	}
	own := false
	server := &Server{cfg: Config{IsOwn: func(netip.AddrPort) bool { return own }, Limits: allowlists.Limits{DialTimeout: time.Second}},
		limits: newLimits(limitCounts{1, 1, 1}, time.Now)}
	host, _ := allowlists.ParseHost("bind.example")
	t2 := &trip{s: &session{server: server, ctx: context.Background()}, via: ViaConnect, pool: policy.Pool("build"), target: allowlists.Target{Host: host, Port: port}}
	t2.by = t2.pool.DecideConn(host, port, time.Now())
	loop := netip.MustParseAddr("127.0.0.1")
	// As if the judgement before the dial had been forgotten.
	_, _, err = t2.dialFirst(context.Background(), []candidate{{loop, t2.by}})
	if d := asDenial(err, nil); d.Decision.Reason != allowlists.SpecialAddress {
		t.Errorf("dialling an address that is not allowed: %v", err)
	}
	public := netip.MustParseAddr("140.82.121.4")
	for says, address := range map[string]string{
		"another address": "140.82.121.5:" + strings.Split(l.Addr().String(), ":")[1],
		"another port":    "140.82.121.4:1",
		"no address":      "bind.example:443",
	} {
		if err := t2.control(candidate{public, t2.by}, address); err == nil {
			t.Errorf("%s passes", says)
		}
	}
	own = true
	if err := t2.control(candidate{netip.MustParseAddr("140.82.121.4"), t2.by}, netip.AddrPortFrom(netip.MustParseAddr("140.82.121.4"), port).String()); err == nil {
		t.Error("our own listener passes")
	}
}
