package proxy

import (
	"context"
	"io"
	"sync/atomic"
)

// A bill counts what one exchange sends upstream, every byte of it, and ends
// the exchange where its meter lets no more pass. One goroutine writes at a time.
type bill struct {
	ctx     context.Context
	meter   *meter
	end     context.CancelCauseFunc // of the exchange
	written atomic.Int64
}

// write writes what may pass of p to conn.
func (b *bill) write(conn io.Writer, p []byte) (n int, err error) {
	g, denied := b.meter.take(b.ctx, int64(len(p)))
	if g.bytes > 0 || denied == nil {
		n, err = conn.Write(p[:g.bytes])
	}
	b.meter.settle(g, int64(n))
	b.written.Add(int64(n))
	if denied != nil {
		b.end(denied)
		if err == nil {
			err = denied
		}
	}
	return n, err
}
