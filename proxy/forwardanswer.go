package proxy

import (
	"bytes"
	"io"
	"net/http"
	"slices"
)

// A responseBody is the body of the answer on its way to the client. It
// remembers what cut the answer short.
type responseBody struct {
	x       *exchange
	src     io.Reader // net/http's, over the upstream connection
	up      *upstreamConn
	chunked bool
}

// newResponseBody begins the body of resp.
func newResponseBody(x *exchange, resp *http.Response) *responseBody {
	b := &responseBody{x: x, src: resp.Body, up: x.f.up, chunked: slices.Contains(resp.TransferEncoding, "chunked")}
	x.whole = resp.Body == http.NoBody || resp.ContentLength == 0
	return b
}

// more reports whether the next read gives something, if only the end, without
// waiting for the upstream: then what is on its way to the client waits for it.
func (b *responseBody) more() bool {
	if b.x.whole {
		return true
	}
	have, _ := b.up.in.Peek(b.up.in.Buffered())
	if b.chunked { // a read waits inside the line that begins a chunk
		return bytes.HasSuffix(have, []byte("0\r\n\r\n"))
	}
	return len(have) > 0
}

// Read remembers how the body ended.
func (b *responseBody) Read(p []byte) (int, error) {
	n, err := b.src.Read(p)
	switch {
	case err == io.EOF:
		b.x.whole = true
	case err != nil:
		b.x.cut = err
	}
	return n, err
}

// WriteTo is how goproxy copies the body.
func (b *responseBody) WriteTo(w io.Writer) (total int64, err error) {
	buf := copyBuffers.Get().(*[copyBuffer]byte)
	defer copyBuffers.Put(buf)
	for {
		n, err := b.Read(buf[:])
		if n > 0 {
			wrote, err := w.Write(buf[:n])
			total += int64(wrote)
			if err != nil {
				return total, err
			}
		}
		switch {
		case err == io.EOF:
			return total, nil
		case err != nil:
			return total, err
		}
	}
}

// Close does nothing: net/http's own would read the rest. What is not read whole
// has its connection closed.
func (b *responseBody) Close() error { return nil }
