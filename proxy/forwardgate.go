package proxy

import (
	"context"
	"net"
	"net/netip"
	"time"

	"sallyport/allowlists"
)

// A forwardGate judges requests and answers those that may not go. It is the
// session of the client connection.
type forwardGate interface {
	// admit judges one request for target under the policy now in force: gate,
	// pool, name, port, Host (judgeRequest). It reads nothing from the client
	// and records nothing for what it admits.
	admit(ctx context.Context, h *head, target allowlists.Target) (passage, error)
	// refuse writes one refused record and answers the client accordingly, with
	// Connection: close.
	refuse(h *head, target allowlists.Target, err error)
}

// A passage is one admitted request. Exactly one of refuse, and opened with
// closed after it, is called.
type passage interface {
	// decision is what admitted it, generation the policy's number.
	decision() allowlists.Decision
	generation() uint64
	// reusable reports whether a connection to addr, judged for an earlier
	// request, may carry this one.
	reusable(addr netip.Addr) bool
	// dial resolves, judges every address and dials one of those judged.
	dial(ctx context.Context) (net.Conn, error)
	// refuse writes one refused record for a request that found no upstream and
	// answers the client.
	refuse(err error)
	// openMeter gives what counts the bytes that go upstream, under the rule of
	// the policy now in force; nil counts and limits nothing.
	openMeter() *meter
	// opened writes the open record.
	opened(upstream netip.Addr)
	// still judges the request under the policy now in force: nil if it may go on.
	still() error
	// closed writes the close record with the body bytes carried each way. err
	// is nil for a request that was carried whole.
	closed(sent, received int64, err error)
	// answer sends the client the response that err asks for, without a record.
	answer(err error)
}

// judgeRequest judges the name, port and Host of a plain HTTP request under a
// policy. An address without a name is DecideLiteral's.
func judgeRequest(pool *allowlists.Pool, h *head, target allowlists.Target, now time.Time) allowlists.Decision {
	var d allowlists.Decision
	if target.Addr.IsValid() {
		d = pool.DecideLiteral(target.Addr, target.Port, now)
	} else {
		d = pool.DecideConn(target.Host, target.Port, now)
	}
	foreign := h.form == formAbsolute && h.target != target
	if d.Allowed() && (foreign || !h.agrees(target)) {
		return pool.Refuse(allowlists.HostMismatch, d.Rule)
	}
	return d
}
