package test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// A jobStep is what a job does without knowing of any proxy.
type jobStep struct {
	says  string
	needs string // a program
	try   func(t *testing.T, r *runner, env []string) error
	via   string // of its connection
	host  string
	port  float64
}

// program is a step that runs one, whose output holds want.
func program(want string, args ...string) func(*testing.T, *runner, []string) error {
	return func(_ *testing.T, r *runner, env []string) error {
		out, err := r.run(env, args...)
		if err == nil && !strings.Contains(out, want) {
			err = fmt.Errorf("no %q in it", want)
		}
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
}

// clone is a step that clones a repository and looks into it.
func clone(url string) func(*testing.T, *runner, []string) error {
	return func(t *testing.T, r *runner, env []string) error {
		dir := filepath.Join(t.TempDir(), "clone")
		if err := program("", "git", "clone", "-q", url, dir)(t, r, env); err != nil {
			return err
		}
		return program("one", "git", "-C", dir, "log", "--oneline")(t, r, env)
	}
}

// aptUpdate reads the index of the repository, and of it alone.
func aptUpdate(t *testing.T, r *runner, env []string) error {
	dir := t.TempDir()
	for _, sub := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	list := filepath.Join(dir, "sources.list")
	if err := os.WriteFile(list, []byte("deb [trusted=yes] http://apt.example/debian ./\n"), 0o644); err != nil {
		return err
	}
	return program("Packages", "apt-get", "update", "-o", "APT::Sandbox::User=root", "-o", "Dir::State="+dir+"/state", "-o", "Dir::Cache="+dir+"/cache",
		"-o", "Dir::Etc::SourceList="+list, "-o", "Dir::Etc::SourceParts=/nonexistent", "-o", "Acquire::http::Proxy=DIRECT", "-o", "APT::Update::Error-Mode=any", "-o", "Acquire::Retries=0")(t, r, env)
}

// rawByName asks the runner's resolver for a name and talks to its address of
// one family.
func rawByName(name, port string, six bool) func(*testing.T, *runner, []string) error {
	return func(t *testing.T, r *runner, _ []string) error {
		addr, err := r.lookup(t, name, six)
		if err != nil {
			return err
		}
		conn, err := r.dial("tcp", net.JoinHostPort(addr.String(), port), "")
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "select 1;\n"); err != nil {
			return err
		}
		got := make([]byte, 10)
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != "select 1;\n" {
			return fmt.Errorf("came back: %q, %v", got, err)
		}
		return nil
	}
}

// jobSteps is what works when it is allowed.
func jobSteps(w *gatewayWorld, ssh *sshServer) []jobStep {
	ca := "--ca-certificate=" + w.ca.file
	return []jobStep{
		{"curl over IPv4", "curl", program("origin GET tls.example /a", "curl", "-4", "-sS", "https://tls.example/a"), "tls", "tls.example", 443},
		{"curl over IPv6", "curl", program("origin GET tls.example /a", "curl", "-6", "-sS", "https://tls.example/a"), "tls", "tls.example", 443},
		{"curl of plain HTTP", "curl", program("origin GET web.example /b", "curl", "-sS", "http://web.example/b"), "http", "web.example", 80},
		{"wget", "wget", program("origin GET tls.example /a", "wget", "-nv", "-O", "-", ca, "https://tls.example/a"), "tls", "tls.example", 443},
		{"git over HTTPS", "git", clone("https://git.example/repo.git"), "tls", "git.example", 443},
		{"git over SSH", "git", clone(ssh.url), "tcp", "ssh.example", 22},
		{"a raw TCP client over IPv4", "", rawByName("db.example", "5432", false), "tcp", "db.example", 5432},
		{"a raw TCP client over IPv6", "", rawByName("db.example", "5432", true), "tcp", "db.example", 5432},
		{"apt", "apt-get", aptUpdate, "http", "apt.example", 80},
	}
}

// run tries a step from a runner.
func (s jobStep) run(t *testing.T, r *runner, env []string) {
	t.Helper()
	if s.needs != "" {
		needProgram(t, s.needs)
	}
	if err := s.try(t, r, env); err != nil {
		t.Error(err)
	}
}

// TestGatewayLayout shows that the world is as the other tests need it: without
// a firewall everything works and the attacker is reached.
func TestGatewayLayout(t *testing.T) {
	w := newGatewayWorld(t, "build1", "build2", "deploy1")
	ssh := w.serveEverything()
	r := w.runners["build1"]
	r.resolver(upstream)
	for _, s := range jobSteps(w, ssh) {
		t.Run(s.says, func(t *testing.T) { s.run(t, r, w.environment(ssh)) })
	}
	for _, six := range []bool{false, true} {
		from, neighbour, other := r.ip, w.runners["build2"].ip, w.runners["deploy1"].ip
		if six {
			from, neighbour, other = r.ip6, w.runners["build2"].ip6, w.runners["deploy1"].ip6
		}
		evil := attackerAt(1, netip.MustParseAddr(from))
		if out, err := r.run(nil, "curl", "-sSk", "--resolve", "tls.example:443:"+bracketed(evil), "https://tls.example/x"); err != nil || !strings.Contains(out, "origin GET") {
			t.Errorf("the attacker does not answer: %v %s", err, out)
		}
		if len(w.reached.all(0, func(p sniffed) bool { return p.src.String() == from })) == 0 {
			t.Errorf("the sniffer has not seen %s", from)
		}
		if _, err := r.run(nil, "ping", "-c", "1", "-W", "2", other); err != nil {
			t.Errorf("the runner of the other pool is not reached: %v", err)
		}
		if _, err := r.run(nil, "ping", "-c", "1", "-W", "1", neighbour); err == nil {
			t.Error("runners of one bridge are not isolated")
		}
	}
}

func bracketed(addr netip.Addr) string {
	if addr.Is6() {
		return "[" + addr.String() + "]"
	}
	return addr.String()
}

// lookup asks the runner's resolver, the gateway, or in a world without one the
// internet's.
func (r *runner) lookup(t *testing.T, name string, six bool) (netip.Addr, error) {
	t.Helper()
	server, err := os.ReadFile(filepath.Join(r.etc(), "resolv.conf"))
	if err != nil {
		return netip.Addr{}, err
	}
	qtype := dns.TypeA
	if six {
		qtype = dns.TypeAAAA
	}
	reply, err := r.ask("udp", net.JoinHostPort(strings.Fields(string(server))[1], "53"), name, qtype)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, rr := range reply.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			return netip.AddrFrom4([4]byte(rr.A.To4())), nil
		case *dns.AAAA:
			return netip.AddrFrom16([16]byte(rr.AAAA)), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no address for %s: %s", name, dns.RcodeToString[reply.Rcode])
}

// ask puts one question to a resolver.
func (r *runner) ask(network, server, name string, qtype uint16) (*dns.Msg, error) {
	r.t.Helper()
	conn, err := r.dial(network, server, "")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), qtype)
	m.SetEdns0(1232, false)
	c := &dns.Conn{Conn: conn, UDPSize: 1232}
	if err := c.WriteMsg(m); err != nil {
		return nil, err
	}
	return c.ReadMsg()
}

// TestGatewayJobs runs real clients that know of no proxy through the gateway,
// and finds each in the event log with its pool and interface.
func TestGatewayJobs(t *testing.T) {
	w := newGatewayWorld(t, "build1", "build2", "deploy1")
	ssh := w.serveEverything()
	d := w.start(buildPools, "")
	r := w.runners["build1"]
	before := w.watch()
	for _, s := range jobSteps(w, ssh) {
		t.Run(s.says, func(t *testing.T) {
			from := len(d.events())
			s.run(t, r, w.environment(ssh))
			e := d.waitSince(from, "the event of its connection", func(e event) bool {
				return e.text("kind") == "conn" && e.text("phase") == "open" && e.text("host") == s.host && e.text("via") == s.via &&
					e.number("port") == s.port && e["redialled"] == nil
			})
			if e.text("pool") != r.pool || e.text("iface") != r.bridge || e.text("reason") != "allowed" || e.text("client") != r.ip && e.text("client") != r.ip6 {
				t.Errorf("%v", e)
			}
			for _, e := range d.events()[from:] {
				// apt asks for SRV records first, which are refused without an alert.
				if e.text("kind") == "alert" || e.text("verdict") == "deny" && e.text("reason") != "dns-type-blocked" {
					t.Errorf("what is allowed is not alone: %v", e)
				}
			}
		})
		if t.Failed() {
			t.Log(d.dump())
		}
	}
	before.checkNothing(t, "what is allowed")
}
