package dnsfilter

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/miekg/dns"
)

// order returns the servers that answer, as listed, then those that do not. A
// server whose back-off is over gets a copy of the question as its probe, so
// that no client waits for a dead one.
func (u *upstreams) order(q question) []*upstream {
	now := time.Now()
	var good, bad []*upstream
	for _, up := range u.list {
		if up.health.up() {
			good = append(good, up)
		} else {
			bad = append(bad, up)
		}
	}
	if len(good) == 0 {
		return bad
	}
	for _, up := range bad {
		if up.health.claimProbe(now) {
			u.probe(up, q)
		}
	}
	return append(good, bad...)
}

// probe asks one server in the background, for the sake of its health only. At
// most one probe per server runs at a time.
func (u *upstreams) probe(up *upstream, q question) {
	if !u.enter() {
		return
	}
	go func() {
		defer u.wg.Done()
		_, _ = u.try(u.ctx, up, q)
		up.health.endProbe()
	}()
}

// failover asks one server after the other, and the silent ones once more.
func (u *upstreams) failover(ctx context.Context, list []*upstream, q question) (*dns.Msg, string, error) {
	var (
		answer *dns.Msg
		from   string
		failed error
	)
	for round := 0; round < upstreamRounds && len(list) > 0 && answer == nil; round++ {
		var silent []*upstream
		for _, up := range list {
			reply, err := u.try(ctx, up, q)
			if err == nil {
				answer, from = reply, up.name
				if reply.Rcode == dns.RcodeSuccess || reply.Rcode == dns.RcodeNameError {
					return answer, from, nil
				}
				continue
			}
			if errors.Is(err, errUpstreamTimeout) {
				silent = append(silent, up)
			}
			if round == 0 {
				failed = also(failed, fmt.Errorf("asking %s: %w", up.name, err))
			}
			if ctx.Err() != nil {
				break
			}
		}
		if ctx.Err() != nil {
			break
		}
		list = silent
	}
	if answer != nil {
		return answer, from, nil
	}
	if err := ended(ctx); err != nil {
		failed = also(failed, err)
	}
	return nil, "", failed
}

// also adds an error to those before it, on one line.
func also(before, err error) error {
	if before == nil {
		return err
	}
	return fmt.Errorf("%w; %w", before, err)
}

// try is one attempt at one server, with its effect on the server's health.
func (u *upstreams) try(ctx context.Context, up *upstream, q question) (*dns.Msg, error) {
	began := time.Now()
	reply, err := u.attempt(ctx, up, q, began)
	if err == nil {
		if up.health.answered(time.Now()) {
			u.log.Info().Str("upstream", up.name).Msg("upstream answers again")
			u.tell(up)
		}
		return reply, nil
	}
	// An attempt cut short by the caller says nothing about the server.
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || time.Since(began) < u.timeout/2) {
		return nil, err
	}
	if up.health.failed(began, time.Now(), err) {
		u.log.Warn().Str("upstream", up.name).Str("error", clip(err.Error())).Msg("upstream does not answer")
		u.tell(up)
	}
	return nil, err
}

// attempt asks one server, for u.timeout at most.
func (u *upstreams) attempt(ctx context.Context, up *upstream, q question, now time.Time) (*dns.Msg, error) {
	if t, ok := up.transport.(*udpTransport); ok { // which needs no timer for that
		reply, err := t.askBy(ctx, q, now.Add(u.timeout))
		if err != nil && ctx.Err() != nil {
			err = ended(ctx)
		}
		return reply, err
	}
	ctx, cancel := context.WithTimeout(ctx, u.timeout)
	defer cancel()
	reply, err := up.transport.ask(ctx, q)
	if err != nil && ctx.Err() != nil {
		err = ended(ctx)
	}
	return reply, err
}

// tell passes an upstream's state on. Under the lock, whoever tells last tells
// the latest state.
func (u *upstreams) tell(up *upstream) {
	u.telling.Lock()
	defer u.telling.Unlock()
	u.up(up.name, up.health.up())
}

// ended words why ctx is over: errUpstreamTimeout, context.Canceled, or nil if it is not.
func ended(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return errUpstreamTimeout
	}
	return ctx.Err()
}
