package dnsfilter

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// silence is a transport that never answers.
type silence struct{}

// ask implements transport.
func (silence) ask(ctx context.Context, _ question) (*dns.Msg, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// close implements transport.
func (silence) close() {}

func TestWhoIsBlamedForSilence(t *testing.T) {
	for _, test := range []struct {
		name             string
		cancel, deadline time.Duration // of the caller; 0: none
		took             time.Duration
		up               bool
		want             error
	}{
		{name: "the upstream, after its attempts", took: 4 * time.Second, want: errUpstreamTimeout},
		{name: "the upstream, if the caller waited half an attempt", deadline: 1500 * time.Millisecond, took: 1500 * time.Millisecond, want: errUpstreamTimeout},
		{name: "nobody, if the caller had less time", deadline: 500 * time.Millisecond, took: 500 * time.Millisecond, up: true, want: errUpstreamTimeout},
		{name: "nobody, if the caller went away", cancel: 1500 * time.Millisecond, took: 1500 * time.Millisecond, up: true, want: context.Canceled},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := asking(t, upstreamConfig{Timeout: 2 * time.Second}, "10.0.0.2")
				u.list[0].transport = silence{}
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				if test.cancel > 0 {
					time.AfterFunc(test.cancel, cancel)
				}
				if test.deadline > 0 {
					ctx, cancel = context.WithTimeout(ctx, test.deadline)
					defer cancel()
				}
				began := time.Now()
				_, _, err := u.exchange(ctx, "www.example", dns.TypeA, queryFlags{})
				if took := time.Since(began); took != test.took || !errors.Is(err, test.want) {
					t.Errorf("after %v: %v; want %v after %v", took, err, test.want, test.took)
				}
				if s := u.status()[0]; s.Up != test.up {
					t.Errorf("status is %+v", s)
				}
			})
		})
	}
}

func TestQuestionsInFlightAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := asking(t, upstreamConfig{Timeout: time.Hour}, "10.0.0.2")
		u.list[0].transport = silence{}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		for range maxInFlight {
			go func() { _, _, _ = u.exchange(ctx, "www.example", dns.TypeA, queryFlags{}) }()
		}
		synctest.Wait()
		late, done := context.WithTimeout(ctx, time.Second)
		defer done()
		if _, _, err := u.exchange(late, "www.example", dns.TypeA, queryFlags{}); !errors.Is(err, errUpstreamTimeout) || !strings.Contains(err.Error(), "slots") {
			t.Errorf("got %v", err)
		}
		if len(u.slots) != maxInFlight || u.status()[0].LastError != "" {
			t.Errorf("%d in flight, and the upstream is %+v", len(u.slots), u.status()[0])
		}
	})
}
