package dnsfilter

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestNobodyWaitsForPacketsThatDoNotCome asks, and then nothing for a while.
func TestNobodyWaitsForPacketsThatDoNotCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{idle: make(chan packet)}
		ctx, end := context.WithCancel(t.Context())
		go s.restPackets(ctx)
		for range 3 {
			s.idlers.Add(1)
			go func() {
				if p := <-s.idle; p.bound == nil {
					s.idlers.Add(-1)
				}
			}()
		}
		s.taken.Store(true)
		time.Sleep(packetRest + time.Second)
		if n := s.idlers.Load(); n != 3 {
			t.Errorf("%d wait, though packets came", n)
		}
		time.Sleep(packetRest)
		if n := s.idlers.Load(); n != 0 {
			t.Errorf("%d wait", n)
		}
		end()
	})
}
