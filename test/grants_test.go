package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const grantPools = `
  build:
    sources: [127.0.0.0/8]
    resolves_to: [127.0.0.0/8]
    allow: [registry.corp.example]
    deny: [denied.example]
`

// allow runs the command against a daemon.
func (d *daemon) allow(args ...string) ran {
	d.t.Helper()
	return command(d.t, d.dir, append([]string{"allow", "--control", "unix:" + d.path("control.sock")}, args...)...)
}

// granted asks for a grant and gives its id.
func (d *daemon) granted(target, lasts string) string {
	d.t.Helper()
	r := d.allow("--pool", "build", target, "--for", lasts, "--reason", "the usual mirror is down", "--by", "alice", "--format", "json")
	var answer struct{ ID string }
	if err := json.Unmarshal([]byte(r.stdout), &answer); r.code != 0 || err != nil {
		d.t.Fatalf("%+v", r)
	}
	return answer.ID
}

// reason is that of a refused CONNECT, "" for one that was not refused.
func (d *daemon) reason(target string) string {
	d.t.Helper()
	r := connect(d.t, d.proxy, target)
	r.conn.Close()
	return r.header.Get("Sallyport-Reason")
}

// TestGrant opens one host and port for a while, tells people, and closes what
// is open at its end. It beats no deny list, and lifts no special address.
func TestGrant(t *testing.T) {
	s := newSlack(t)
	d := prepare(t, config{})
	d.deliverTo(s)
	o := echoOrigin(t, d.neighbour(2)+":0")
	z := newZone(t, "echo.example. 60 IN A "+o.ip, "private.example. 60 IN A 10.0.0.5", "denied.example. 60 IN A "+o.ip)
	d.write(z.addr, grantPools)
	d.run()
	target := "echo.example:" + o.port
	if got := d.reason(target); got != "not-in-allowlist" {
		t.Fatalf("before: %q", got)
	}
	id := d.granted(target, "1h")
	said := d.wait("the event", func(e event) bool { return e.text("event") == "granted" })
	if text := fmt.Sprint(said["details"]); !strings.Contains(text, "by:alice (") || !strings.Contains(text, fmt.Sprintf("uid %d)", os.Getuid())) ||
		!strings.Contains(text, "host:"+target) || !strings.Contains(text, "reason:the usual mirror is down") || !strings.Contains(text, "id:"+id) {
		t.Errorf("the event says %s", text)
	}
	tunnel := connect(t, d.proxy, target)
	if tunnel.code != 200 {
		t.Fatal(tunnel.status)
	}
	if err := roundTrip(tunnel, "granted"); err != nil {
		t.Fatal(err)
	}
	d.wait("its rule", func(e event) bool { return e.text("phase") == "open" && e.text("rule") == "grant:"+id })
	if got := d.reason("echo.example:22"); got != "port-not-allowed" {
		t.Errorf("another port: %q", got)
	}
	eventually(t, "the message", func() bool { return s.mentions("the usual mirror is down") > 0 && s.mentions(target) > 0 }, d.dump)

	r := d.allow("--pool", "build", "denied.example", "--reason", "please")
	if r.code != 1 || !strings.Contains(r.stderr, "denies denied.example, and a deny list beats every grant") {
		t.Errorf("a denied host: %+v", r)
	}
	d.granted("private.example", "1h")
	if got := d.reason("private.example:443"); got != "special-address" {
		t.Errorf("a private address: %q", got)
	}
	if r := d.allow("--list"); r.code != 0 || !strings.Contains(r.stdout, id) || !strings.Contains(r.stdout, "private.example:443") {
		t.Errorf("the list: %+v", r)
	}
	if _, status := d.control("/api/v1/status"); !bytes.Contains(status, []byte(`"id":"`+id+`"`)) {
		t.Errorf("the status: %s", status)
	}

	if r := commandIn(t, d.dir, d.env, binary, "explain", "-c", "sallyport.yaml", "--pool", "build", target); r.code != 0 || !strings.Contains(r.stdout, "grant:"+id) {
		t.Errorf("explain: %+v", r)
	}
	if r := commandIn(t, d.dir, d.env, binary, "explain", "-c", "sallyport.yaml", "--pool", "build", "echo.example:22"); r.code != 3 {
		t.Errorf("explain of another port: %+v", r)
	}

	d.write(z.addr, strings.Replace(grantPools, "registry.corp.example", "another.corp.example", 1))
	d.wait("a reload", func(e event) bool { return e.text("event") == "reloaded" })
	if err := roundTrip(tunnel, "still"); err != nil {
		t.Errorf("a reload ends a grant: %v", err)
	}
	if r := d.allow("--end", id); r.code != 0 {
		t.Fatalf("ending it: %+v", r)
	}
	_ = tunnel.conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := tunnel.br.ReadByte(); err == nil || os.IsTimeout(err) {
		t.Errorf("the tunnel goes on: %v", err)
	}
	d.wait("its end", func(e event) bool {
		return e.text("event") == "grant-ended" && strings.Contains(fmt.Sprint(e["details"]), "why:removed")
	})
	if got := d.reason(target); got != "not-in-allowlist" {
		t.Errorf("after: %q", got)
	}
	if m := ask(t, d.dns, "echo.example", dns.TypeA); m.Rcode != dns.RcodeNameError {
		t.Errorf("after, the resolver answers %v", m)
	}
	if r := d.allow("--end", id); r.code != 1 || !strings.Contains(r.stderr, "no grant has the id") {
		t.Errorf("ending it twice: %+v", r)
	}
	for _, e := range d.events() {
		if e.text("kind") == "alert" && strings.Contains(e.text("summary"), "ends on") {
			t.Errorf("a grant is told of like a rule that is about to end: %s", e.text("summary"))
		}
	}
}

// TestGrantEndsByItself at its time, with what it alone allowed.
func TestGrantEndsByItself(t *testing.T) {
	d := prepare(t, config{})
	o := echoOrigin(t, d.neighbour(2)+":0")
	d.write(newZone(t, "echo.example. 60 IN A "+o.ip).addr, grantPools)
	d.run()
	d.granted("echo.example:"+o.port, "4s")
	tunnel := connect(t, d.proxy, "echo.example:"+o.port)
	if tunnel.code != 200 {
		t.Fatal(tunnel.status)
	}
	_ = tunnel.conn.SetReadDeadline(time.Now().Add(patience))
	if _, err := tunnel.br.ReadByte(); err == nil || os.IsTimeout(err) {
		t.Errorf("the tunnel goes on: %v", err)
	}
	d.wait("its end", func(e event) bool {
		return e.text("event") == "grant-ended" && strings.Contains(fmt.Sprint(e["details"]), "why:time")
	})
	if got := d.reason("echo.example:" + o.port); got != "not-in-allowlist" {
		t.Errorf("after: %q", got)
	}
}

// TestGrantOverARestart: a kill -9 ends no grant and makes none longer; kept
// grants that cannot be read grant nothing.
func TestGrantOverARestart(t *testing.T) {
	d := prepare(t, config{})
	o := echoOrigin(t, d.neighbour(2)+":0")
	d.write(newZone(t, "echo.example. 60 IN A "+o.ip, "short.example. 60 IN A "+o.ip).addr, grantPools)
	d.run()
	id := d.granted("echo.example:"+o.port, "1h")
	short := d.granted("short.example", "1s")
	d.kill()
	file := d.path("state/grants.json")
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", info, err)
	}
	d.run()
	after := connect(t, d.proxy, "echo.example:"+o.port)
	if after.code != 200 {
		t.Errorf("after a kill: %s", after.status)
	}
	after.conn.Close()
	d.wait("the one that holds from before", func(e event) bool {
		text := fmt.Sprint(e["details"])
		return e.text("event") == "granted" && strings.Contains(text, "recalled:true") && strings.Contains(text, "id:"+id) && strings.Contains(text, "by:alice (")
	})
	d.wait("the end of the other", func(e event) bool {
		return e.text("event") == "grant-ended" && strings.Contains(fmt.Sprint(e["details"]), "id:"+short)
	})
	if r := d.allow("--list"); !strings.Contains(r.stdout, id) || !strings.Contains(r.stdout, "alice") || strings.Contains(r.stdout, short) {
		t.Errorf("the list after a kill: %+v", r)
	}
	d.stop()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for says, damage := range map[string]func() error{
		"a wildcard": func() error {
			return os.WriteFile(file, bytes.Replace(text, []byte("echo.example"), []byte("*.example"), 1), 0o600)
		},
		"a pipe":   func() error { return syscall.Mkfifo(file, 0o600) },
		"a link":   func() error { return os.Symlink(d.path("kept"), file) },
		"a folder": func() error { return os.Mkdir(file, 0o700) },
		"two MiB":  func() error { return os.WriteFile(file, append(bytes.Repeat([]byte(" "), 2<<20), text...), 0o600) },
	} {
		if err := errors.Join(os.WriteFile(d.path("kept"), text, 0o600), os.RemoveAll(file), damage()); err != nil {
			t.Fatal(err)
		}
		d.run()
		if got := d.reason("echo.example:" + o.port); got != "not-in-allowlist" {
			t.Errorf("%s: %q", says, got)
		}
		d.wait("what became of it", func(e event) bool {
			return e.text("event") == "grant-ended" && strings.Contains(fmt.Sprint(e["details"]), "why:state")
		})
		d.stop()
		_ = os.Remove(d.path("events.jsonl"))
		if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: it is still there: %v", says, err)
		}
	}
	if left, _ := filepath.Glob(file + ".damaged-*"); len(left) != 3 {
		t.Errorf("kept for who looks at it are %v, want the last three", left)
	}
}

// TestGrantEndThatCannotBeKept: whoever ends a grant that a restart would bring
// back is told that it goes on.
func TestGrantEndThatCannotBeKept(t *testing.T) {
	d := prepare(t, config{})
	d.write(newZone(t).addr, grantPools)
	d.run()
	id := d.granted("echo.example", "1h")
	if err := os.Rename(d.path("state"), d.path("away")); err != nil {
		t.Fatal(err)
	}
	for os.WriteFile(d.path("state"), nil, 0o600) != nil { // else the store of alerts makes the folder anew
		_ = os.RemoveAll(d.path("state"))
	}
	if r := d.allow("--end", id); r.code != 1 || !strings.Contains(r.stderr, "the grant goes on, as alerts.state_dir does not take its end") {
		t.Errorf("%+v", r)
	}
	if r := d.allow("--pool", "build", "other.example", "--reason", "please"); r.code != 1 || !strings.Contains(r.stderr, "nothing was granted, as alerts.state_dir does not take it") {
		t.Errorf("a grant that cannot be kept: %+v", r)
	}
	if r := d.allow("--list"); !strings.Contains(r.stdout, id) || strings.Contains(r.stdout, "other.example") {
		t.Errorf("the list: %+v", r)
	}
	for {
		if err := os.RemoveAll(d.path("state")); err != nil {
			t.Fatal(err)
		}
		if os.Rename(d.path("away"), d.path("state")) == nil {
			break
		}
	}
	if r := d.allow("--end", id); r.code != 0 {
		t.Errorf("once it can: %+v", r)
	}
}

// TestGrantsAreAskedForByOperatorsOnly: not by a page in a browser, not without
// the token, and not in any form.
func TestGrantsAreAskedForByOperatorsOnly(t *testing.T) {
	d := prepare(t, config{})
	control := net.JoinHostPort(d.neighbour(3), "9181")
	if err := os.WriteFile(d.path("token"), []byte("0123456789abcdef0123"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.listen = fmt.Sprintf("{proxy: %q, dns: %q, admin: %q, control: %q}\nadmin: {token_file: %s}", d.proxy, d.dns, d.admin, control, d.path("token"))
	d.write(newZone(t).addr, grantPools)
	d.run()
	const wish = `{"pool": "build", "host": "mirror.example", "for": "1h", "reason": "please"}`
	post := func(body string, headers ...string) (int, string) {
		req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://"+control+"/api/v1/grants", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer 0123456789abcdef0123")
		req.Header.Set("Content-Type", "application/json")
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		resp, err := (&http.Client{Timeout: patience}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(text)
	}
	for rule, c := range map[string]struct {
		body    string
		headers []string
		code    int
	}{
		"without the token":          {wish, []string{"Authorization", ""}, 401},
		"with another":               {wish, []string{"Authorization", "Bearer 0123456789abcdef0124"}, 401},
		"from a page":                {wish, []string{"Origin", "https://evil.example"}, 403},
		"from our own page":          {wish, []string{"Origin", "http://" + control}, 403},
		"with a cookie":              {wish, []string{"Cookie", "session=1"}, 403},
		"from a browser":             {wish, []string{"Sec-Fetch-Site", "same-origin"}, 403},
		"as a form":                  {wish, []string{"Content-Type", "text/plain"}, 415},
		"in no JSON":                 {"pool=build", nil, 400},
		"with something behind it":   {wish + `{"pool": "build"}`, nil, 400},
		"with a key too many":        {`{"pool": "build", "mode": "audit"}`, nil, 400},
		"with too much":              {`{"reason": "` + strings.Repeat("a", 20<<10) + `"}`, nil, 400},
		"for a wildcard":             {strings.Replace(wish, "mirror", "*", 1), nil, 400},
		"for an address":             {strings.Replace(wish, "mirror.example", "169.254.169.254", 1), nil, 400},
		"for two days":               {strings.Replace(wish, "1h", "48h", 1), nil, 400},
		"for a pool that is not":     {strings.Replace(wish, "build", "biuld", 1), nil, 400},
		"with a name that is escape": {strings.Replace(wish, "please", `\u001b[31m`, 1), nil, 400},
	} {
		if code, text := post(c.body, c.headers...); code != c.code {
			t.Errorf("%s: %d %s", rule, code, text)
		}
	}
	if code, text := post(wish); code != 201 || !strings.Contains(text, `"by":"token"`) || !strings.Contains(text, `"kept":true`) {
		t.Errorf("%d %s", code, text)
	}
	for i := range 99 {
		if code, text := post(strings.Replace(wish, "mirror", fmt.Sprintf("m%d", i), 1)); code != 201 {
			t.Fatalf("%d: %d %s", i, code, text)
		}
	}
	if code, _ := post(strings.Replace(wish, "mirror", "more", 1)); code != 409 {
		t.Errorf("the 101st: %d", code)
	}
	r := command(t, d.dir, "allow", "-c", "sallyport.yaml", "--list", "--format", "json")
	var all []struct{ By string }
	if err := json.Unmarshal([]byte(r.stdout), &all); err != nil || len(all) != 100 {
		t.Errorf("%d are listed, %v: %s", len(all), err, r.stderr)
	}
}
