package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/allowlists"
)

// TestRelayTimers holds idle time and progress by the clock.
func TestRelayTimers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := new(crew)
		defer c.end()
		client, near := net.Pipe()
		far, target := net.Pipe()
		var progress []int64
		r := &relay{crew: c, client: near, upstream: far, idle: 10 * time.Minute, every: time.Minute, onProgress: func(sent, _ int64) { progress = append(progress, sent) }}
		began := time.Now()
		done := make(chan error, 1)
		go func() { _, err := r.run(context.Background(), nil); done <- err }()
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
		for _, conn := range []net.Conn{client, near, far, target} {
			_ = conn.Close()
		}
	})
}

// TestRelayEndsWithItsContext cancels a relay on which nothing moves.
func TestRelayEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := new(crew)
		defer c.end()
		client, near := net.Pipe()
		far, target := net.Pipe()
		ctx, cancel := context.WithCancelCause(context.Background())
		why := refusal(allowlists.Decision{Reason: allowlists.PolicyChanged}, nil)
		time.AfterFunc(time.Second, func() { cancel(why) })
		r := &relay{crew: c, client: near, upstream: far, idle: time.Hour}
		if _, err := r.run(ctx, nil); err != error(why) {
			t.Errorf("ended with %v", err)
		}
		for _, conn := range []net.Conn{client, near, far, target} {
			_ = conn.Close()
		}
	})
}

// TestRelayContainsPanics panics on each side of a relay.
func TestRelayContainsPanics(t *testing.T) {
	for _, side := range []string{"sent", "received"} {
		synctest.Test(t, func(t *testing.T) {
			c := new(crew)
			defer c.end()
			client, near := net.Pipe()
			far, target := net.Pipe()
			boom := func(int) { panic("boom") }
			r := &relay{crew: c, client: near, upstream: far, idle: time.Hour}
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
				if _, err := r.run(context.Background(), nil); !errors.Is(err, errPanic) {
					t.Errorf("%s: ended with %v", side, err)
				}
			}()
			for _, conn := range []net.Conn{client, near, far, target} {
				_ = conn.Close()
			}
		})
	}
}

// TestARefusedOfferOfParkingIsMadeAgain: the watch, which had nothing to look at
// while it was offered, looks again.
func TestARefusedOfferOfParkingIsMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, near := net.Pipe()
		far, target := net.Pipe()
		r := &relay{client: near, upstream: far, idle: time.Hour}
		r.mayPark(new(parkingLot), time.Second, func() {})
		r.begin()
		r.upward.state.Store(wayWaits)
		r.back.state.Store(wayWaits)
		for range 3 {
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if !r.parking.offered.Load() {
				t.Fatal("it is not offered though nothing moves")
			}
			r.refuseParking()
		}
		r.end()
		for _, conn := range []net.Conn{client, near, far, target} {
			_ = conn.Close()
		}
	})
}
