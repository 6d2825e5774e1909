package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/allowlists"
)

// A scripted upstream plays a script on each connection, the first that comes
// the first script, and then closes it.
func (b *forwardBench) scripted(scripts ...func(c *benchClient)) {
	b.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	done := make(chan struct{})
	b.t.Cleanup(func() { _ = listener.Close(); <-done })
	go func() {
		defer close(done)
		for _, script := range scripts {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			script(&benchClient{b.t, conn.(*net.TCPConn), bufio.NewReader(conn)})
			_ = conn.Close()
		}
	}()
	b.set(func() { b.origin = listener.Addr().String() })
}

// request reads the head of a request.
func (c *benchClient) request() {
	if _, err := http.ReadRequest(c.in); err != nil {
		c.t.Errorf("the upstream reads %v", err)
	}
}

// rest waits until the other side closes.
func (c *benchClient) rest() { _, _ = io.Copy(io.Discard, c.in) }

const answerOK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// TestUpstreamThatMayNotCarryAnother has each connection carry one request, and
// do or say something by which it may not carry the next.
func TestUpstreamThatMayNotCarryAnother(t *testing.T) {
	const evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
	spoken := make(chan struct{})
	rows := map[string]func(c *benchClient){
		"an answer to nothing, with the one before": func(c *benchClient) { c.send(answerOK + evil) },
		"an answer to nothing, later":               func(c *benchClient) { c.send(answerOK); <-spoken; c.send(evil); spoken <- struct{}{} },
		"an answer that is to be the last":          func(c *benchClient) { c.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok") },
		"an end while it waits":                     func(c *benchClient) { c.send(answerOK); <-spoken; _ = c.CloseWrite(); spoken <- struct{}{} },
	}
	for rule, say := range rows {
		t.Run(rule, func(t *testing.T) {
			b := newBench(t, nil, "a.example:80")
			b.scripted(func(c *benchClient) {
				c.request()
				say(c)
				c.rest()
			}, func(c *benchClient) {
				c.request()
				c.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfresh")
				c.rest()
			})
			c := b.dialClient()
			if _, body := c.do(getA); body != "ok" {
				t.Fatalf("the first answer is %q", body)
			}
			if strings.Contains(rule, "later") || strings.Contains(rule, "waits") {
				spoken <- struct{}{}
				<-spoken
			}
			if _, body := c.do(getA); body != "fresh" {
				t.Errorf("the second answer is %q", body)
			}
			_ = c.Close()
		})
	}
}

// TestRequestGoesTwiceOnlyIfNothingWasHeard: what an upstream has begun to
// answer it may have done.
func TestRequestGoesTwiceOnlyIfNothingWasHeard(t *testing.T) {
	b := newBench(t, nil, "a.example:80")
	b.scripted(func(c *benchClient) {
		c.request()
		c.send(answerOK)
		c.request()
		c.send("HTTP/1.1 2")
	})
	c := b.dialClient()
	c.do(getA)
	if status, _ := c.do(getA); status != 502 || b.dials.Load() != 1 {
		t.Errorf("an answer that breaks off: %d after %d dials", status, b.dials.Load())
	}
	b = newBench(t, nil, "a.example:80")
	b.scripted(func(c *benchClient) {
		c.request()
		c.send(answerOK)
		c.request()
	}, func(c *benchClient) {
		c.request()
		c.send(answerOK)
		c.rest()
	})
	c = b.dialClient()
	c.do(getA)
	if status, _ := c.do(getA); status != 200 || b.dials.Load() != 2 {
		t.Errorf("no answer on a connection that waited: %d after %d dials", status, b.dials.Load())
	}
	_ = c.Close()
	b = newBench(t, rawOrigin(""), "a.example:80")
	if status, _ := b.dialClient().do(getA); status != 502 || b.dials.Load() != 1 {
		t.Errorf("no answer on a connection that did not wait: %d after %d dials", status, b.dials.Load())
	}
}

func TestUpstreamAnswersThatAreNone(t *testing.T) {
	long := strings.Repeat("x", 8000)
	for rule, answer := range map[string]string{
		"a head over the limit":            "HTTP/1.1 200 OK\r\nX: " + long + "\r\nY: " + long + "\r\n\r\n",
		"interim heads that do not end":    strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 1000) + answerOK,
		"a status that HTTP does not know": "HTTP/1.1 099 What\r\n\r\n" + answerOK,
	} {
		b := newBench(t, rawOrigin(answer), "a.example:80")
		if status, _ := b.dialClient().do(getA); status != 502 {
			t.Errorf("%s: %d", rule, status)
		}
	}
}

// TestForwardSendsWhatItHas: an answer goes to the client as far as it came,
// however little more of it has come.
func TestForwardSendsWhatItHas(t *testing.T) {
	for rule, parts := range map[string][2]string{
		"inside the line before a chunk": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1", "\r\n!\r\n0\r\n\r\n"},
		"behind a chunk":                 {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", "1\r\n!\r\n0\r\n\r\n"},
		"inside a body":                  {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", "!"},
		"before a body":                  {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "ok!"},
		"in a body without a length":     {"HTTP/1.0 200 OK\r\n\r\nok", "!"},
	} {
		t.Run(rule, func(t *testing.T) {
			seen := make(chan struct{})
			b := newBench(t, nil, "a.example:80")
			b.scripted(func(c *benchClient) {
				c.request()
				c.send(parts[0])
				<-seen
				c.send(parts[1])
			})
			c := b.dialClient()
			c.send(getA)
			resp, err := http.ReadResponse(c.in, nil)
			if err == nil && strings.Contains(parts[0], "ok") {
				_, err = io.ReadFull(resp.Body, make([]byte, 2))
			}
			close(seen)
			if err != nil {
				t.Fatalf("the client waits for the first part: %v", err)
			}
			if rest, err := io.ReadAll(resp.Body); err != nil || !strings.HasSuffix(string(rest), "!") {
				t.Errorf("then comes %q, %v", rest, err)
			}
		})
	}
}

// countedConn counts writes.
type countedConn struct {
	net.Conn
	writes int
}

func (c *countedConn) Write(p []byte) (int, error) {
	c.writes++
	return c.Conn.Write(p)
}

// TestForwardSendsAShortAnswerAtOnce: head, body and end go in one write.
func TestForwardSendsAShortAnswerAtOnce(t *testing.T) {
	for _, answer := range []string{answerOK, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"} {
		b := newBench(t, rawOrigin(answer), "a.example:80")
		near, far := net.Pipe()
		counted := &countedConn{Conn: near}
		served := make(chan struct{})
		go func() { defer close(served); b.serve(t.Context(), counted) }()
		_, _ = io.WriteString(far, getA)
		resp, err := http.ReadResponse(bufio.NewReader(far), nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(resp.Body); string(body) != "ok" || err != nil {
			t.Errorf("the body is %q, %v", body, err)
		}
		_ = far.Close()
		<-served
		if counted.writes != 1 {
			t.Errorf("%d writes", counted.writes)
		}
	}
}

// pipedExchange is an exchange for a.example with a pipe upstream, whose far
// end it gives.
func pipedExchange(t *testing.T) (*exchange, net.Conn) {
	target, err := allowlists.ParseTarget("a.example:80", 0)
	if err != nil {
		t.Fatal(err)
	}
	policy, err := allowlists.NewPolicy(allowlists.PolicySpec{})
	if err != nil {
		t.Fatal(err)
	}
	x := &exchange{f: &forwarder{limits: forwardLimits{idleTimeout: time.Minute}}, target: target, head: &head{}, done: make(chan struct{})}
	x.ctx, x.void = context.WithCancelCause(t.Context())
	x.pass = &benchPassage{policy: policy}
	x.body = &requestBody{x: x, asked: make(chan bool, 1)}
	near, far := net.Pipe()
	x.f.up = newUpstreamConn(x, near, time.Minute)
	return x, far
}

func TestUpstreamWaitsForWhatMayFollow(t *testing.T) {
	rows := map[string]struct {
		change func(x *exchange)
		waits  bool
	}{
		"a whole exchange":             {func(*exchange) {}, true},
		"an answer not read whole":     {func(x *exchange) { x.whole = false }, false},
		"the last answer":              {func(x *exchange) { x.last = true }, false},
		"an exchange that was ended":   {func(x *exchange) { x.cancel(errClientGone) }, false},
		"a body that did not go whole": {func(x *exchange) { x.uploaded = make(chan bool, 1); x.uploaded <- false }, false},
		"a body that is under way":     {func(x *exchange) { x.uploaded = make(chan bool, 1) }, false},
		"a body that is not read":      {func(x *exchange) { x.uploaded = make(chan bool, 1); x.uploaded <- true; x.body.finished.Store(false) }, false},
		"a body that went whole":       {func(x *exchange) { x.uploaded = make(chan bool, 1); x.uploaded <- true }, true},
	}
	for rule, r := range rows {
		synctest.Test(t, func(t *testing.T) {
			x, far := pipedExchange(t)
			x.whole = true
			x.body.finished.Store(true)
			up := x.f.up
			r.change(x)
			x.settle()
			if waits := x.f.up == up && !up.closed.Load(); waits != r.waits {
				t.Errorf("%s: it waits: %v", rule, waits)
			}
			if r.waits && !up.resume() {
				t.Errorf("%s: it cannot carry another", rule)
			}
			x.f.hold(nil)
			_ = far.Close()
		})
	}
}

func TestUpstreamWaitsNotForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, far := pipedExchange(t)
		for range 2 { // the second wait is by the same timer
			x.f.up.wait()
			time.Sleep(pooledFor - 1)
			if !x.f.up.resume() {
				t.Fatal("a connection did not wait")
			}
			time.Sleep(pooledFor)
		}
		x.f.up.wait()
		if _, err := far.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the upstream reads %v", err)
		}
		if x.f.up.resume() {
			t.Error("a connection that was closed may carry a request")
		}
	})
}

func TestBodyThatWaitsToBeAskedFor(t *testing.T) {
	rows := map[string]struct {
		then func(x *exchange)
		want bool
		took time.Duration
	}{
		"asked for":       {func(x *exchange) { x.body.ask(true); x.body.ask(false) }, true, 0},
		"not needed":      {func(x *exchange) { x.body.ask(false) }, false, 0},
		"over":            {func(x *exchange) { close(x.done) }, false, 0},
		"never spoken of": {func(*exchange) {}, true, continueFor},
	}
	for rule, r := range rows {
		synctest.Test(t, func(t *testing.T) {
			x, far := pipedExchange(t)
			defer far.Close()
			r.then(x)
			start := time.Now()
			if got := x.body.wanted(); got != r.want || time.Since(start) != r.took {
				t.Errorf("%s: %v after %v", rule, got, time.Since(start))
			}
		})
	}
}

// TestAnswerAsksForTheBody: 100 does, an answer says that there is no need.
func TestAnswerAsksForTheBody(t *testing.T) {
	for answer, want := range map[string]bool{"HTTP/1.1 100 Continue\r\n\r\n" + answerOK: true, answerOK: false} {
		x, far := pipedExchange(t)
		go func() { _, _ = io.WriteString(far, answer) }()
		if _, err := x.answer(x.f.up, &http.Request{Method: "PUT"}); err != nil {
			t.Fatal(err)
		}
		select {
		case got := <-x.body.asked:
			if got != want {
				t.Errorf("%q asks for the body: %v", answer, got)
			}
		default:
			t.Errorf("%q says nothing", answer)
		}
		_ = far.Close()
	}
}

// endingPassage ends the exchange while it dials.
type endingPassage struct {
	*benchPassage
	end func()
}

func (p endingPassage) dial(context.Context) (net.Conn, error) {
	p.end()
	near, _ := net.Pipe()
	return near, nil
}

func TestConnectionThatCameTooLateIsNotWaitedFor(t *testing.T) {
	x, far := pipedExchange(t)
	defer far.Close()
	x.pass = endingPassage{x.pass.(*benchPassage), func() { x.cancel(errClientGone) }}
	if err := x.dial(); err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() { _, err := x.f.up.Read(make([]byte, 1)); read <- err }()
	if err := within(t, "the end of the read", read); err == nil {
		t.Error("a connection is read from for an exchange that is over")
	}
	x.f.hold(nil)
}

// panicBody panics when it is read.
type panicBody struct{}

func (panicBody) Read([]byte) (int, error) { panic("ouch") }
func (panicBody) Close() error             { return nil }

func TestForwardContainsAPanicOfTheBody(t *testing.T) {
	b := newBench(t, &echo{}, "a.example:80")
	carrier := newCarrier()
	b.set(func() {
		b.carrier = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Body = panicBody{}
			carrier.ServeHTTP(w, r)
		})
	})
	b.dialClient().send("POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nabc")
	if end := b.phases("close", 1)[0]; end.reason != allowlists.InternalError || !errors.Is(end.err, errPanic) {
		t.Errorf("the close record is %+v", end)
	}
}

func TestForwardEndsWithItsSession(t *testing.T) {
	asked := make(chan struct{})
	b := newBench(t, nil, "a.example:80")
	b.scripted(func(c *benchClient) {
		c.request()
		close(asked)
		c.rest()
	})
	near, far := net.Pipe()
	defer far.Close()
	ctx, end := context.WithCancelCause(t.Context())
	served := make(chan struct{})
	go func() { defer close(served); b.serve(ctx, near) }()
	go func() { _, _ = io.Copy(io.Discard, far) }()
	_, _ = io.WriteString(far, getA)
	within(t, "the request", asked)
	end(&allowlists.DeniedError{Decision: allowlists.Decision{Reason: allowlists.ShuttingDown}})
	if closed := b.phases("close", 1)[0]; closed.reason != allowlists.ShuttingDown {
		t.Errorf("the close record is %+v", closed)
	}
	<-served
}

// lastingPassage may go on under every policy.
type lastingPassage struct{ *benchPassage }

func (lastingPassage) still() error { return nil }

// TestExchangeThatBeginsTooLate: what ended it before it began interrupts it all
// the same.
func TestExchangeThatBeginsTooLate(t *testing.T) {
	for rule, begin := range map[string]func(x *exchange){
		"the session's end": func(x *exchange) {
			ctx, end := context.WithCancelCause(t.Context())
			end(errClientGone)
			x.f.ctx = ctx
			x.setCarrying(true)
			x.f.setCurrent(x)
		},
		"its own end": func(x *exchange) { x.cancel(errClientGone); x.setCarrying(true) },
	} {
		x, far := pipedExchange(t)
		x.pass = lastingPassage{x.pass.(*benchPassage)}
		client, _ := net.Pipe()
		x.f.conn = client
		begin(x)
		if cause := context.Cause(x.ctx); !errors.Is(cause, errClientGone) {
			t.Errorf("%s: the cause is %v", rule, cause)
		}
		read := make(chan error, 1)
		go func() { _, err := x.f.up.Read(make([]byte, 1)); read <- err }()
		if err := within(t, "the end of a read after "+rule, read); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the upstream connection gives %v", rule, err)
		}
		_ = far.Close()
	}
}

// TestEachReadKeepsTheUpstreamAlive, but for the first after a write, which did.
func TestEachReadKeepsTheUpstreamAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, far := pipedExchange(t)
		up := x.f.up
		up.bill = &bill{ctx: t.Context()}
		go func() {
			_, _ = far.Read(make([]byte, 1))
			time.Sleep(up.idle / 2)
			_, _ = far.Write([]byte("x"))
		}()
		_, _ = up.Write([]byte("x"))
		up.fresh = true
		if _, err := up.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if _, err := up.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != up.idle {
			t.Errorf("a read ends after %v with %v", time.Since(start), err)
		}
		_ = far.Close()
		x.f.hold(nil)
	})
}
