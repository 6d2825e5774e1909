package proxy

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/allowlists"
)

const getA = "GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n"

// echo answers with the request line and the body, and counts.
type echo struct{ requests atomic.Int64 }

func (e *echo) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.requests.Add(1)
	body, _ := io.ReadAll(r.Body)
	_, _ = fmt.Fprintf(w, "%s %s %s %s", r.Method, r.Host, r.RequestURI, body)
}

func TestForwardCarries(t *testing.T) {
	b := newBench(t, &echo{}, "a.example:80", "b.example:8080")
	c := b.dialClient()
	rows := []struct{ rule, request, body string }{
		{"an absolute URI", getA, "GET a.example /x "},
		{"a second request on the same connection", getA, "GET a.example /x "},
		{"another host", "GET http://b.example:8080/y?z=%zz HTTP/1.1\r\nHost: B.Example.:8080\r\n\r\n", "GET b.example:8080 /y?z=%zz "},
		{"a path spelled in an odd way", "GET http://a.example/a%2Fb|c\"d HTTP/1.1\r\nHost: a.example\r\n\r\n", "GET a.example /a%2Fb|c\"d "},
		{"no path", "GET http://a.example?q HTTP/1.1\r\nHost: a.example\r\n\r\n", "GET a.example /?q "},
		{"a path of two slashes", "GET http://a.example//b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", "GET a.example //b.example/ "},
		{"OPTIONS for the whole server", "OPTIONS http://a.example HTTP/1.1\r\nHost: a.example\r\n\r\n", ""},
		{"a body with a length", "POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nabc", "POST a.example / abc"},
		{"a chunked body", "PUT http://a.example/ HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n", "PUT a.example / abc"},
		{"a method of its own", "PROPFIND http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", "PROPFIND a.example / "},
		{"HTTP/1.0 without Host", "GET http://a.example/x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "GET a.example /x "},
		{"HTTP/1.0 ends the connection", "GET http://a.example/x HTTP/1.0\r\n\r\n", "GET a.example /x "},
	}
	for _, r := range rows {
		if status, body := c.do(r.request); status != 200 || body != r.body {
			t.Errorf("%s: %d %q", r.rule, status, body)
		}
	}
	c.ended()
	opens, closes := b.phases("open", len(rows)), b.phases("close", len(rows))
	if len(opens) != len(rows) || len(closes) != len(rows) {
		t.Errorf("%d requests leave %d open and %d close records", len(rows), len(opens), len(closes))
	}
	if post := closes[7]; post.sent != 3 || post.received != 20 || post.err != nil {
		t.Errorf("the close record of a request of 3 bytes is %+v", post)
	}
	if n := b.dials.Load(); n != 6 {
		t.Errorf("%d dials, want one for each change of destination and each request that cannot be repeated", n)
	}
}

func TestForwardRefuses(t *testing.T) {
	origin := &echo{}
	b := newBench(t, origin, "a.example:80")
	rows := []struct {
		rule, request string
		status        int
		reason        allowlists.Reason
	}{
		{"a name that is not allowed", "GET http://b.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n", 403, allowlists.NotInAllowlist},
		{"a port that is not allowed", "GET http://a.example:81/ HTTP/1.1\r\nHost: a.example:81\r\n\r\n", 403, allowlists.PortNotAllowed},
		{"a forged Host", "GET http://a.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n", 403, allowlists.HostMismatch},
		{"a Host with another port", "GET http://a.example/ HTTP/1.1\r\nHost: a.example:81\r\n\r\n", 403, allowlists.HostMismatch},
		{"an allowed Host for a name that is not", "GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", 403, allowlists.NotInAllowlist},
		{"an address", "GET http://127.0.0.1/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 403, allowlists.SpecialAddress},
		{"a path without a host", "GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n", 400, allowlists.BadRequest},
		{"an asterisk", "OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n", 400, allowlists.BadRequest},
		{"https", "GET https://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", 400, allowlists.BadRequest},
		{"the HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, allowlists.BadRequest},
		{"a host that is none", "GET http://a..example/ HTTP/1.1\r\nHost: a..example\r\n\r\n", 400, allowlists.BadHost},
		{"a head over the limit", "GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nX: " + strings.Repeat("x", 9000) + "\r\n\r\n", 431, allowlists.LimitExceeded},
	}
	for i, r := range rows {
		c := b.dialClient()
		status, _ := c.do(r.request)
		record := b.phases("refused", i+1)[i]
		if status != r.status || record.reason != r.reason {
			t.Errorf("%s: %d %v", r.rule, status, record.reason)
		}
		c.ended()
	}
	if origin.requests.Load() != 0 || b.dials.Load() != 0 {
		t.Errorf("%d requests and %d dials for refused requests", origin.requests.Load(), b.dials.Load())
	}
}

func TestForwardJudgesEachPipelinedRequest(t *testing.T) {
	origin := &echo{}
	b := newBench(t, origin, "a.example:80")
	c := b.dialClient()
	c.send(getA + getA + "GET http://b.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n" + getA)
	for _, want := range []int{200, 200, 403} {
		if resp, _ := c.response("GET"); resp.StatusCode != want {
			t.Errorf("status %d, want %d", resp.StatusCode, want)
		}
	}
	c.ended()
	if n := origin.requests.Load(); n != 2 {
		t.Errorf("the origin saw %d requests, want 2", n)
	}
	if refused := b.phases("refused", 1); len(refused) != 1 {
		t.Errorf("%d refused records", len(refused))
	}
}

func TestForwardHandsOverConnect(t *testing.T) {
	b := newBench(t, &echo{}, "a.example:80")
	b.set(func() {
		b.carrier = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == "CONNECT" {
				t.Error("CONNECT entered goproxy")
			}
			newCarrier().ServeHTTP(w, r)
		})
	})
	c := b.dialClient()
	c.do(getA)
	c.send("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n")
	if got := b.phases("connect", 1); got[0].target != "a.example:443" {
		t.Errorf("the session is given %v", got)
	}
	c.ended()
}

func TestForwardInsideConnect(t *testing.T) {
	origin := &echo{}
	b := newBench(t, origin, "a.example:80")
	b.set(func() { b.inner, _ = allowlists.ParseTarget("a.example:80", 0) })
	rows := []struct {
		rule, request string
		status        int
	}{
		{"a path", "GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n", 200},
		{"the same host in a URI", getA, 200},
		{"HTTP/1.0 without Host", "GET /x HTTP/1.0\r\n\r\n", 200},
		{"an asterisk", "OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n", 200},
		{"another Host", "GET /x HTTP/1.1\r\nHost: b.example\r\n\r\n", 403},
		{"another URI", "GET http://b.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n", 403},
		{"another URI with the right Host", "GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", 403},
		{"CONNECT", "CONNECT a.example:80 HTTP/1.1\r\nHost: a.example:80\r\n\r\n", 400},
		{"the HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400},
	}
	for _, r := range rows {
		if status, body := b.dialClient().do(r.request); status != r.status {
			t.Errorf("%s: %d %q", r.rule, status, body)
		}
	}
	c := b.dialClient()
	c.do("GET /1 HTTP/1.1\r\nHost: a.example\r\n\r\n")
	if status, _ := c.do("GET /2 HTTP/1.1\r\nHost: b.example\r\n\r\n"); status != 403 {
		t.Errorf("the second request in the tunnel is answered %d", status)
	}
}

func TestForwardJudgesAPooledConnectionAgain(t *testing.T) {
	b := newBench(t, &echo{}, "a.example:80")
	c := b.dialClient()
	c.do(getA)
	c.do(getA)
	if n := b.dials.Load(); n != 1 {
		t.Errorf("%d dials for two requests", n)
	}
	b.noReuse.Store(true)
	c.do(getA)
	within(t, "the end of the connection that may not be used again", b.ended)
	if n := b.dials.Load(); n != 2 {
		t.Errorf("%d dials, as the connection may not be used again", n)
	}
}

func TestJudgeRequest(t *testing.T) {
	pattern, _ := allowlists.ParsePattern("a.example")
	spec := allowlists.PoolSpec{Name: "build", Allow: []allowlists.Rule{{Host: pattern, Ports: allowlists.NewPortSet(80)}}}
	pools := make(map[allowlists.Mode]*allowlists.Pool)
	for _, mode := range []allowlists.Mode{allowlists.Enforce, allowlists.Audit} {
		spec.Mode = mode
		policy, err := allowlists.NewPolicy(allowlists.PolicySpec{Pools: []allowlists.PoolSpec{spec}})
		if err != nil {
			t.Fatal(err)
		}
		pools[mode] = policy.Pool("build")
	}
	rows := []struct{ rule, host, reason string }{
		{"the same host", "a.example", "allowed"},
		{"the same host in another spelling", "A.EXAMPLE.:80", "allowed"},
		{"another host", "b.example", "host-mismatch"},
		{"another port", "a.example:81", "host-mismatch"},
		{"an address for the name", "192.0.2.1", "host-mismatch"},
	}
	for _, r := range rows {
		h, _, err := readText("GET http://a.example/ HTTP/1.1\r\nHost: "+r.host+"\r\n\r\n", 8192)
		if err != nil {
			t.Fatal(err)
		}
		if d := judgeRequest(pools[allowlists.Enforce], h, h.target, time.Now()); d.Reason.String() != r.reason {
			t.Errorf("%s: %v", r.rule, d.Reason)
		}
		if d := judgeRequest(pools[allowlists.Audit], h, h.target, time.Now()); !d.Allowed() || d.Cause().String() != r.reason {
			t.Errorf("%s: in audit %v, %v", r.rule, d.Verdict, d.Cause())
		}
		if d := judgeRequest(nil, h, h.target, time.Now()); d.Reason != allowlists.NoPool {
			t.Errorf("%s: without a pool %v", r.rule, d.Reason)
		}
	}
	address := allowlists.Target{Addr: netip.MustParseAddr("8.8.8.8"), Port: 80}
	if d := judgeRequest(pools[allowlists.Enforce], &head{form: formAbsolute, target: address}, address, time.Now()); d.Reason != allowlists.AddressLiteral {
		t.Errorf("an address: %v", d.Reason)
	}
}
