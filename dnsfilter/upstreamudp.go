package dnsfilter

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Timing of a question over UDP.
const (
	firstResend = 400 * time.Millisecond // doubles with each loss
	caseGrace   = 250 * time.Millisecond // wait for a true answer after one in the wrong case
	caseMemory  = time.Hour              // an upstream that loses case is asked in lower case for so long
)

// maxDatagram is the longest datagram we take; a longer one counts as truncated.
const maxDatagram = 4096

// errCase is an answer that is right in everything but the case of the name.
var errCase = errors.New("the answer does not echo the case of the question")

// datagrams lends the buffers that answers are read into.
var datagrams = sync.Pool{New: func() any { return new([maxDatagram]byte) }}

// udpTransport asks over UDP, under an unpredictable ID and from an unpredictable
// port (see sockets), and over TCP for what does not fit.
type udpTransport struct {
	sockets   sockets
	echoes    *echoes
	tcp       *streamTransport
	lowerTill atomic.Int64 // Unix nanoseconds; until then questions are not mixed
}

// newUDPTransport makes the transport of one server; timeout bounds one attempt.
func newUDPTransport(addr netip.AddrPort, timeout time.Duration, sent *echoes) *udpTransport {
	return &udpTransport{sockets: sockets{addr: addr}, echoes: sent, tcp: newStreamTransport(dialTCP(addr), timeout)}
}

// ask implements transport.
func (t *udpTransport) ask(ctx context.Context, q question) (*dns.Msg, error) {
	return t.askBy(ctx, q, time.Now().Add(t.tcp.timeout))
}

// askBy is ask, but has an answer by a time, or fails with errUpstreamTimeout. A
// server that does not echo the case of the question is asked again in lower
// case, and if it answers, is remembered.
func (t *udpTransport) askBy(ctx context.Context, q question, by time.Time) (*dns.Msg, error) {
	mix := time.Now().UnixNano() >= t.lowerTill.Load()
	reply, err := t.askOnce(ctx, q, mix, by)
	if errors.Is(err, errCase) {
		reply, err = t.askOnce(ctx, q, false, by)
		if err == nil || errors.Is(err, errTruncated) {
			t.lowerTill.Store(time.Now().Add(caseMemory).UnixNano())
		}
	}
	if errors.Is(err, errTruncated) {
		ctx, cancel := context.WithDeadline(ctx, by)
		defer cancel()
		if reply, err = t.tcp.ask(ctx, q); err != nil && ctx.Err() != nil {
			err = ended(ctx)
		}
	}
	return reply, err
}

// askOnce sends the question, and again after each loss. Only a socket whose
// question was answered is used for another.
func (t *udpTransport) askOnce(ctx context.Context, q question, mix bool, by time.Time) (*dns.Msg, error) {
	query := q.pack(randomID(), mix)
	if mix {
		defer t.echoes.sending(query)()
	}
	// Connected: the kernel picks a random port and drops what others send.
	s, err := t.sockets.take()
	if err != nil {
		return nil, bare(err)
	}
	unwatch := context.AfterFunc(ctx, func() { _ = s.SetDeadline(time.Unix(1, 0)) })
	answer, err := sendAndWait(ctx, s.UDPConn, query, mix, by)
	if unwatch() && err == nil {
		t.sockets.giveBack(s)
	} else {
		s.Close()
	}
	if err != nil {
		return nil, err
	}
	return parseAnswer(q, answer)
}

// sendAndWait sends a query until it is answered, it is too late, or ctx ends.
func sendAndWait(ctx context.Context, conn *net.UDPConn, query []byte, mix bool, by time.Time) ([]byte, error) {
	for wait := firstResend; ; wait *= 2 {
		if _, err := conn.Write(query); err != nil && ctx.Err() == nil {
			return nil, bare(err)
		}
		resend := time.Now().Add(wait)
		late := !resend.Before(by)
		if late {
			resend = by
		}
		answer, err := readAnswer(ctx, conn, query, mix, resend)
		switch {
		case ctx.Err() != nil:
			return nil, ended(ctx)
		case err == nil:
			return answer, nil
		case errors.Is(err, errCase), errors.Is(err, errTruncated):
			return nil, err
		case !isTimeout(err):
			return nil, bare(err)
		case late:
			return nil, errUpstreamTimeout
		}
	}
}

// readAnswer waits for the datagram that answers query; everything else that
// arrives is ignored, however much it is. If the question was mixed and all that
// came by the deadline was an answer in the wrong case, it returns errCase, soon
// after that answer.
func readAnswer(ctx context.Context, conn *net.UDPConn, query []byte, mix bool, deadline time.Time) ([]byte, error) {
	buffer := datagrams.Get().(*[maxDatagram]byte)
	defer datagrams.Put(buffer)
	wrongCase := false
	if err := setReadDeadline(ctx, conn, deadline); err != nil {
		return nil, err
	}
	for {
		n, err := conn.Read(buffer[:])
		if err != nil {
			if wrongCase && isTimeout(err) {
				return nil, errCase
			}
			return nil, err
		}
		fit := matchAnswer(query, buffer[:n])
		switch {
		case fit == matchExact, fit == matchCase && !mix:
			if n == maxDatagram {
				return nil, errTruncated
			}
			return append([]byte(nil), buffer[:n]...), nil
		case fit == matchCase && !wrongCase:
			wrongCase = true
			if grace := time.Now().Add(caseGrace); grace.Before(deadline) {
				if err := setReadDeadline(ctx, conn, grace); err != nil {
					return nil, err
				}
			}
		}
	}
}

// setReadDeadline sets a deadline without undoing the one that the end of ctx set.
func setReadDeadline(ctx context.Context, conn net.Conn, deadline time.Time) error {
	if err := conn.SetReadDeadline(deadline); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return conn.SetReadDeadline(time.Unix(1, 0))
	}
	return nil
}

// isTimeout reports whether err is that of a deadline.
func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// bare takes from a network error the addresses, which the upstream's name
// already tells, and leaves operation and cause.
func bare(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return fmt.Errorf("%s over %s: %w", op.Op, op.Net, op.Err)
	}
	return err
}

// close implements transport.
func (t *udpTransport) close() {
	t.sockets.close()
	t.tcp.close()
}
