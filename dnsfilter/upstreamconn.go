package dnsfilter

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// stream is one connection to a server and the questions waiting on it. Its
// goroutine run dials, reads and tidies up; callers write.
//
//	dialling --ready--> open --done--> over
type stream struct {
	t       *streamTransport
	ready   chan struct{} // closed when conn is set, or the stream is over
	done    chan struct{} // closed when the stream is over; err is set before
	writing chan struct{} // one token: the right to write
	single  bool          // nobody joins before the first answer: for a question asked again

	mu      sync.Mutex
	conn    net.Conn // nil while dialling
	err     error
	waiting map[uint16]*call // by ID; bounded by maxInFlight
	sent    time.Time        // of the last question
	heard   time.Time        // of the last answer
}

// call is one question that waits for its answer.
type call struct {
	query  []byte
	answer chan []byte // holds one, so that the reader never waits
}

// newStream makes a stream whose run is yet to be started.
func newStream(t *streamTransport, single bool) *stream {
	return &stream{
		t:       t,
		single:  single,
		ready:   make(chan struct{}),
		done:    make(chan struct{}),
		writing: make(chan struct{}, 1),
		waiting: make(map[uint16]*call),
	}
}

// load is the number of questions waiting.
func (s *stream) load() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting)
}

// used reports whether the connection has ever brought an answer.
func (s *stream) used() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.heard.IsZero()
}

// over reports whether the connection has ended.
func (s *stream) over() bool { return s.reason() != nil }

// end closes the connection and fails whoever waits; only the first call counts.
func (s *stream) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.err = err
	if s.conn != nil {
		_ = s.conn.Close()
	}
	close(s.done)
}

// ask sends the question and waits for its answer. A connection that has brought
// answers before and is silent for patience, if that is not zero, is given up:
// it may be dead without anybody having said so.
func (s *stream) ask(ctx context.Context, q question, patience time.Duration) (*dns.Msg, error) {
	var impatient <-chan time.Time
	if patience > 0 && s.used() {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		impatient = timer.C
	}
	select {
	case <-s.ready:
	case <-ctx.Done():
		return nil, ended(ctx)
	}
	id, c, err := s.enlist(q)
	if err != nil {
		return nil, err
	}
	defer s.delist(id, c)
	began := time.Now()
	if err := s.write(ctx, c.query); err != nil {
		return nil, err
	}
	for {
		select {
		case answer := <-c.answer:
			return parseAnswer(q, answer)
		case <-s.done:
			select {
			case answer := <-c.answer: // it came just before the end
				return parseAnswer(q, answer)
			default:
				return nil, s.reason()
			}
		case <-impatient:
			s.endIfSilent(began)
			impatient = nil
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				s.endIfSilent(began)
			}
			return nil, ended(ctx)
		}
	}
}

// endIfSilent gives the connection up if no answer to any question came since t.
func (s *stream) endIfSilent(t time.Time) {
	s.mu.Lock()
	silent := s.heard.Before(t)
	s.mu.Unlock()
	if silent {
		s.end(fmt.Errorf("%w: nothing came in time", errStreamBroken))
	}
}

// enlist packs the question under an ID that no other question on the
// connection has, and adds it to those that wait.
func (s *stream) enlist(q question) (uint16, *call, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, nil, s.err
	}
	if len(s.waiting) >= maxInFlight {
		return 0, nil, errors.New("too many questions wait on the connection")
	}
	id := randomID()
	for s.waiting[id] != nil {
		id++
	}
	query := q.pack(id, false)
	c := &call{query: query, answer: make(chan []byte, 1)}
	s.waiting[id] = c
	return id, c, nil
}

// delist ends a wait, unless its answer did and the ID is somebody else's now.
func (s *stream) delist(id uint16, c *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting[id] == c {
		delete(s.waiting, id)
	}
}

// write sends one message; a message cut short ends the connection.
func (s *stream) write(ctx context.Context, query []byte) error {
	select {
	case s.writing <- struct{}{}:
		defer func() { <-s.writing }()
	case <-s.done:
		return s.reason()
	case <-ctx.Done():
		return ended(ctx)
	}
	s.mu.Lock()
	s.sent = time.Now()
	s.mu.Unlock()
	frame := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(query)), uint16(len(query)))
	_ = s.conn.SetWriteDeadline(time.Now().Add(s.t.timeout))
	if _, err := s.conn.Write(append(frame, query...)); err != nil {
		s.end(fmt.Errorf("%w: %w", errStreamBroken, bare(err)))
		return s.reason()
	}
	return nil
}

// reason is why the stream is over.
func (s *stream) reason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// run owns the connection from dialling to the end.
func (s *stream) run() {
	defer s.t.wg.Done()
	defer s.t.forget(s)
	ctx, cancel := context.WithTimeout(s.t.ctx, s.t.timeout)
	conn, err := s.t.dial(ctx)
	if err != nil && ctx.Err() != nil {
		err = ended(ctx)
	}
	cancel()
	if err != nil {
		s.end(err)
		close(s.ready)
		return
	}
	s.mu.Lock()
	s.conn = conn
	over := s.err != nil
	s.mu.Unlock()
	close(s.ready)
	if !over {
		s.end(s.read(bufio.NewReader(conn)))
	}
	_ = conn.Close() // again, if end came while dialling
}

// read hands each answer to whoever waits for it, until the connection ends,
// has been idle, or brings too much that nobody asked for.
func (s *stream) read(r *bufio.Reader) error {
	for strays := 0; strays < maxStrays; {
		_ = s.conn.SetReadDeadline(time.Now().Add(streamIdle))
		prefix, err := r.Peek(2)
		if err != nil {
			if isTimeout(err) && s.busy() {
				continue
			}
			return fmt.Errorf("%w: %w", errStreamBroken, bare(err))
		}
		answer := make([]byte, binary.BigEndian.Uint16(prefix))
		_, _ = r.Discard(2)
		_ = s.conn.SetReadDeadline(time.Now().Add(s.t.timeout))
		if _, err := io.ReadFull(r, answer); err != nil {
			return fmt.Errorf("%w: %w", errStreamBroken, bare(err))
		}
		if !s.deliver(answer) {
			strays++
		}
	}
	return fmt.Errorf("%w: %d messages answered nothing", errStreamBroken, maxStrays)
}

// busy reports whether a question was sent within the idle time and still waits.
func (s *stream) busy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.waiting) > 0 && time.Since(s.sent) < streamIdle
}

// deliver gives a message to the question that it answers; false if there is none.
func (s *stream) deliver(answer []byte) bool {
	if len(answer) < headerSize {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id := binary.BigEndian.Uint16(answer)
	c := s.waiting[id]
	if c == nil || matchAnswer(c.query, answer) == matchNone {
		return false
	}
	delete(s.waiting, id)
	s.heard = time.Now()
	c.answer <- answer
	return true
}
