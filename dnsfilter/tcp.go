package dnsfilter

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Bounds on connections over TCP, RFC 7766 section 6.
const (
	maxClientStreams = 1024             // connections; half for a pool, a quarter of that for a client
	maxPipeline      = 64               // questions of one connection worked on at a time
	clientIdle       = 10 * time.Second // from one question to the next
	clientRead       = 5 * time.Second  // for a message once its length came
	clientWrite      = 5 * time.Second  // for a reply
	// maxStreamed bounds the questions over TCP that are worked on, or whose
	// reply is not taken yet: half for a pool, a quarter of that for a client. A
	// reply is 64 KiB at most.
	maxStreamed = 2048
	acceptPause = 100 * time.Millisecond
)

// streams is the set of open connections. Safe for concurrent use.
type streams struct {
	shares *shares
	mu     sync.Mutex // guards what follows, and wg.Add against wg.Wait
	open   map[net.Conn]struct{}
	closed bool
	wg     sync.WaitGroup
}

func newStreams() *streams {
	return &streams{shares: newShares(maxClientStreams), open: make(map[net.Conn]struct{})}
}

// add counts a connection in; false if there is no room for it or no time.
func (t *streams) add(c net.Conn, by account) bool {
	if !t.shares.enter(by) {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		t.shares.leave(by)
		return false
	}
	t.open[c] = struct{}{}
	t.wg.Add(1)
	return true
}

func (t *streams) remove(c net.Conn, by account) {
	t.shares.leave(by)
	t.mu.Lock()
	delete(t.open, c)
	t.mu.Unlock()
	t.wg.Done()
}

// arm sets the deadline of the next read, unless reading is over.
func (t *streams) arm(c net.Conn, d time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.closed && c.SetReadDeadline(time.Now().Add(d)) == nil
}

// stop makes every connection read no more.
func (t *streams) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for c := range t.open {
		_ = c.SetReadDeadline(longAgo)
	}
}

// wait returns when every connection has sent its replies and is closed.
func (t *streams) wait() { t.wg.Wait() }

// serveTCP accepts connections until the listener is closed. Running out of
// descriptors slows it down and does not end it.
func (s *Server) serveTCP(b *bound) error {
	for {
		c, err := b.tcp.AcceptTCP()
		switch {
		case err == nil:
			s.startStream(c, b)
		case s.stopping.Load():
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		default:
			s.pause(err, "accepting a DNS connection")
		}
	}
}

// pause keeps a loop whose every turn fails from taking the whole processor.
func (s *Server) pause(err error, doing string) {
	s.cfg.Log.Warn().Err(err).Msg(doing)
	select {
	case <-time.After(acceptPause):
	case <-s.ctx.Done():
	}
}

// startStream serves one connection, or closes it where its client has too many.
func (s *Server) startStream(c *net.TCPConn, b *bound) {
	from := origin{
		client: s.known(c.RemoteAddr().(*net.TCPAddr).AddrPort()),
		local:  plain(c.LocalAddr().(*net.TCPAddr).AddrPort()),
		pool:   b.Pool, iface: b.Iface,
		wanted: originalOf(c),
	}
	from.machine = s.cfg.Machine(from.iface, from.client.Addr())
	sub, _ := s.cfg.Policy().Subject(from.client.Addr(), from.iface, from.pool)
	sub.Machine = from.machine
	by := account{sub.Pool, sub.Key()}
	if !s.streams.add(c, by) {
		c.Close()
		return
	}
	go func() {
		defer s.streams.remove(c, by)
		defer c.Close()
		s.serveStream(c, from, by)
	}()
}

// serveStream answers the questions of one connection, side by side and in
// whatever order they are done, and returns when none comes any more and all
// replies are out. Whoever takes no replies holds a turn of his own client and
// pool with each.
func (s *Server) serveStream(c net.Conn, from origin, by account) {
	var (
		busy  = make(chan struct{}, maxPipeline)
		write = make(chan struct{}, 1) // one reply at a time
		wg    sync.WaitGroup
	)
	defer wg.Wait()
	for {
		raw, ok := s.readStream(c)
		if !ok {
			return
		}
		busy <- struct{}{}
		if !s.streamed.take(s.ctx, by) {
			return
		}
		wg.Go(func() {
			defer func() { s.streamed.giveBack(by); <-busy }()
			reply := s.handle(s.ctx, raw, from)
			if reply == nil {
				return
			}
			write <- struct{}{}
			defer func() { <-write }()
			if writeStream(c, reply) != nil {
				c.Close() // ends the read too
			}
		})
		if len(raw) > maxQuery {
			return
		}
	}
}

// readStream reads one message with its length before it. Of one longer than
// any question it reads so much that it is seen to be too long; the connection
// is of no use after it.
func (s *Server) readStream(c net.Conn) ([]byte, bool) {
	var length [2]byte
	if !s.streams.arm(c, clientIdle) {
		return nil, false
	}
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return nil, false
	}
	raw := make([]byte, min(int(binary.BigEndian.Uint16(length[:])), maxQuery+1))
	if !s.streams.arm(c, clientRead) {
		return nil, false
	}
	if _, err := io.ReadFull(c, raw); err != nil {
		return nil, false
	}
	return raw, true
}

// writeStream writes one reply with its length before it, in one piece.
func writeStream(c net.Conn, reply []byte) error {
	if len(reply) > dns.MaxMsgSize {
		return io.ErrShortWrite
	}
	if err := c.SetWriteDeadline(time.Now().Add(clientWrite)); err != nil {
		return err
	}
	framed := make([]byte, 2+len(reply))
	binary.BigEndian.PutUint16(framed, uint16(len(reply)))
	copy(framed[2:], reply)
	_, err := c.Write(framed)
	return err
}
