package test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// An oldFlow is one from before the firewall.
type oldFlow struct {
	says string
	conn net.Conn // the runner's end
	evil netip.AddrPort
}

// openFlows opens a flow of every kind from a runner to the attacker, over both
// families, and one from the attacker to the runner.
func (w *gatewayWorld) openFlows(r *runner) (flows []*oldFlow) {
	t := w.t
	t.Helper()
	const port = 40002
	w.attacker.do(func() { udpEcho(t, fmt.Sprintf("[::]:%d", port)) })
	for self, wan := range map[string]string{r.ip: "93.185.0.2", r.ip6: "2606:2801:185::2"} {
		evil := netip.MustParseAddr(wan)
		for network, port := range map[string]uint16{"tcp": 40000, "udp": port} {
			to := netip.AddrPortFrom(evil, port)
			conn, err := r.dial(network, to.String(), self)
			if err != nil {
				t.Fatal(err)
			}
			flows = append(flows, &oldFlow{network + " from " + self, conn, to})
		}
		var l net.Listener
		r.do(func() {
			var err error
			if l, err = net.Listen("tcp", net.JoinHostPort(self, "2222")); err != nil {
				t.Fatal(err)
			}
		})
		defer l.Close()
		theirs, err := w.attacker.dial("tcp", net.JoinHostPort(self, "2222"), "")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			defer theirs.Close()
			_, _ = io.Copy(theirs, theirs)
		}()
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		flows = append(flows, &oldFlow{"tcp to " + self, conn, netip.MustParseAddrPort(conn.RemoteAddr().String())})
	}
	for _, f := range flows {
		t.Cleanup(func() { f.conn.Close() })
		if err := f.echo(); err != nil {
			t.Fatalf("%s does not work before: %v", f.says, err)
		}
	}
	return flows
}

// echo sends a line and reads it back.
func (f *oldFlow) echo() error {
	if err := f.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(f.conn, secret); err != nil {
		return err
	}
	_, err := io.ReadFull(f.conn, make([]byte, len(secret)))
	return err
}

func udpEcho(t *testing.T, addr string) {
	t.Helper()
	conn, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buffer := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(buffer[:n], from)
		}
	}()
}

// TestGatewayOldFlows opens flows before the firewall is there, which must not
// outlive its coming, whether the kernel knew of them or not.
func TestGatewayOldFlows(t *testing.T) {
	t.Parallel()
	needProgram(t, "nft")
	for _, tracked := range []bool{false, true} {
		t.Run(fmt.Sprintf("tracked: %v", tracked), func(t *testing.T) {
			w := newGatewayWorld(t, "build1", "deploy1")
			if tracked { // as beside another program's firewall
				rules := "add table inet other; add chain inet other through { type filter hook forward priority 0; }; add rule inet other through ct state established,related accept"
				if out, err := w.gateway.run(nil, "nft", rules); err != nil {
					t.Fatalf("nft: %v\n%s", err, out)
				}
			}
			flows := w.openFlows(w.runners["build1"])
			d := w.start(buildPools, "")
			watch := w.watch()
			for _, f := range flows {
				if err := f.echo(); err == nil {
					t.Errorf("%s lives on", f.says)
				} else if errTimedOut(err) != nil {
					t.Errorf("%s hangs: %v", f.says, err)
				}
				e := d.wait("an event of "+f.says, func(e event) bool {
					return e.text("kind") == "conn" && e.text("ip") == f.evil.Addr().String() && e.number("port") == float64(f.evil.Port()) && e.text("phase") == "refused" && e.text("reason") == "protocol-blocked"
				})
				toldOf{f.says, "denied-egress", e}.check(t, d)
			}
			watch.checkNothing(t, "old flows")
		})
	}
}

// errTimedOut is err if it is a time-out.
func errTimedOut(err error) error {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return err
	}
	return nil
}

// TestGatewayLife follows one gateway through kill, restart, reload, stop and
// the removal of its firewall, which alone opens the way.
func TestGatewayLife(t *testing.T) {
	t.Parallel()
	w := attackWorld(t)
	d := w.start(buildPools, "\nlimits: {drain_timeout: 1s}\n")
	r := w.runners["build1"]
	allowed := func() error {
		return program("origin GET tls.example /a", "curl", "-sS", "-m", "10", "https://tls.example/a")(t, r, w.environment(nil))
	}
	if err := allowed(); err != nil {
		t.Fatal(err)
	}
	var inside []*origin // servers that the attacker would like to reach
	r.do(func() { inside = append(inside, echoOrigin(t, r.ip+":2222"), echoOrigin(t, "["+r.ip6+"]:2222")) })
	w.attacker.patient = 200 * time.Millisecond
	fromOutside := func() (reached int) {
		for _, o := range inside {
			if conn, err := w.attacker.dial("tcp", o.addr.String(), ""); err == nil {
				conn.Close()
				reached++
			}
		}
		return reached
	}
	if fromOutside() != 0 {
		t.Error("the attacker reaches a runner")
	}
	shut := func(t *testing.T, n int) {
		t.Helper()
		if fromOutside() != 0 {
			t.Error("the attacker reaches a runner")
		}
		if err := allowed(); err == nil {
			t.Error("what is allowed works, so something else serves")
		}
		for _, k := range gatewayAttacks() {
			for _, a := range k.attempts(t, w, n, false) {
				watch, before := w.watch(), a.arrivals(k)
				k.try(a)
				watch.checkNothing(t, k.says)
				if after := a.arrivals(k); after != before {
					t.Errorf("%s arrived", a.name(k))
				}
			}
		}
	}
	d.kill()
	t.Run("killed", func(t *testing.T) { shut(t, 180) })
	d.run()
	t.Run("restarted", func(t *testing.T) {
		if err := allowed(); err != nil {
			t.Error(err)
		}
	})
	t.Run("reloaded without the rules", func(t *testing.T) { w.checkReload(t, d, r) })
	d.write(upstream+":53", buildPools)
	d.hangup()
	eventually(t, "the rules to be back", func() bool { return allowed() == nil }, d.dump)
	d.stop()
	t.Run("stopped", func(t *testing.T) { shut(t, 181) })
	t.Run("removed", func(t *testing.T) {
		if out, err := w.gateway.run(nil, binary, "firewall", "remove"); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		before := w.reached.count()
		k := gatewayAttacks()[0]
		for _, a := range k.attempts(t, w, 182, false) {
			k.try(a)
		}
		if w.settle(); w.reached.count() == before || fromOutside() != len(inside) {
			t.Error("the way is not open, so the tests above show nothing")
		}
	})
}

// checkReload takes the rules of two open connections away.
func (w *gatewayWorld) checkReload(t *testing.T, d *daemon, r *runner) {
	type open struct {
		host string
		conn net.Conn
	}
	var all []open
	for _, host := range []string{"db.example:5432", "tls.example:443"} {
		name, port, _ := net.SplitHostPort(host)
		for _, six := range []bool{false, true} {
			addr, err := r.lookup(t, name, six)
			if err != nil {
				t.Fatal(err)
			}
			conn, err := r.dial("tcp", net.JoinHostPort(addr.String(), port), "")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if port == "443" {
				conn = w.secure(t, conn, name)
			}
			all = append(all, open{name, conn})
		}
	}
	for _, o := range all {
		d.wait("the open connection to "+o.host, func(e event) bool { return e.text("phase") == "open" && e.text("host") == o.host })
	}
	seen := len(d.events())
	d.write(upstream+":53", "  build:\n    sources: [10.20.0.0/24, \"2001:db8:20::/64\"]\n    interfaces: [br-build]\n    allow: [web.example:80]\n")
	d.hangup()
	d.waitSince(seen, "the reload", func(e event) bool { return e.text("event") == "reloaded" })
	begun := time.Now()
	for _, o := range all {
		if _, err := o.conn.Read(make([]byte, 1)); err == nil || errTimedOut(err) != nil {
			t.Errorf("the connection to %s: %v", o.host, err)
		}
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("they died after %s", took)
	}
	closed := func() int {
		return len(slices.DeleteFunc(d.events()[seen:], func(e event) bool {
			return e.text("phase") != "close" || e.text("reason") != "policy-changed"
		}))
	}
	eventually(t, "an event of each", func() bool { return closed() == len(all) }, d.dump)
}

// secure makes a TLS connection of one that is a TCP connection.
func (w *gatewayWorld) secure(t *testing.T, conn net.Conn, name string) net.Conn {
	t.Helper()
	client := tls.Client(conn, w.clientTLS(name))
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	return client
}

// TestGatewayNested puts a container into a runner, behind a bridge of its own:
// with the runner's address it is the runner, and with its own it is nobody.
func TestGatewayNested(t *testing.T) {
	t.Parallel()
	needProgram(t, "nft")
	w := attackWorld(t)
	host := w.runners["build1"]
	c := &runner{space: newSpace(t, "container"), pool: host.pool, bridge: host.bridge, ip: "172.20.0.2", ip6: "2001:db8:ffff::2", gate: host.gate, gate6: host.gate6}
	host.forwards()
	wire(host.space, "docker0", c.space, "eth0")
	host.address("docker0", "172.20.0.1/24", "2001:db8:ffff::1/64")
	c.address("eth0", c.ip+"/24", c.ip6+"/64")
	c.route("default", "172.20.0.1", "default", "2001:db8:ffff::1")
	c.resolver(c.gate)
	w.runners["container"] = c
	// The way back is there: nothing but the firewall is in the way.
	w.gateway.route("172.20.0.0/24", host.ip, "2001:db8:ffff::/64", host.ip6)
	w.internet.route("172.20.0.0/24", uplink4, "2001:db8:ffff::/64", uplink6)
	picked := []string{"TLS to a direct address on 443, without a name", "a direct address on any port", "an allowed server name at the attacker's address",
		"QUIC", "UDP to any port", "DNS of a refused name at a foreign server over UDP", "DNS of a refused name at a foreign server over TCP", "an ICMP echo with a payload"}
	all := slices.DeleteFunc(gatewayAttacks(), func(k attack) bool { return k.at != "" || k.expect.pool == "-" })
	for i := range all {
		all[i].by = "container"
	}
	for n, k := range all {
		for _, a := range k.attempts(t, w, n+1, false) {
			before := a.arrivals(k)
			k.try(a)
			w.settle()
			if a.arrivals(k) == before && slices.Contains(picked, k.says) {
				t.Errorf("%s: does not arrive without the firewall", a.name(k))
			}
		}
	}
	d := w.start(buildPools, "")
	t.Run("with its own address", func(t *testing.T) {
		c.patient = 200 * time.Millisecond // there is nobody to tell of a refusal
		defer func() { c.patient = patience }()
		for n, k := range all {
			for _, a := range k.attempts(t, w, n+100, false) {
				watch := w.watch()
				k.try(a)
				watch.checkNothing(t, a.name(k))
			}
		}
		d.wait("an event of it", func(e event) bool {
			return e.text("kind") == "conn" && e.text("client") == c.ip && e.text("reason") == "no-pool" && e.text("iface") == host.bridge
		})
		if out, err := c.run(w.environment(nil), "curl", "-sS", "-m", "2", "https://tls.example/a"); err == nil {
			t.Errorf("nobody reached something: %s", out)
		}
	})
	if out, err := host.run(nil, "nft", "add table inet docker; add chain inet docker out { type nat hook postrouting priority 100; }; add rule inet docker out oifname eth0 masquerade"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Run("with the runner's address", func(t *testing.T) {
		if err := program("origin GET tls.example /a", "curl", "-sS", "-m", "10", "https://tls.example/a")(t, c, w.environment(nil)); err != nil {
			t.Error(err)
		}
		for n, k := range all {
			for _, a := range k.attempts(t, w, n+1, true) {
				t.Run(a.name(k), func(t *testing.T) {
					a.t = t
					if !slices.Contains(picked, k.says) {
						a.guarded = false
						k.expect.reason = ""
					}
					if e := k.check(a, d); e != nil && e.text("client") != host.ip && e.text("client") != host.ip6 {
						t.Errorf("the client is %s", e.text("client"))
					}
				})
			}
		}
	})
}

// TestGatewaySpoofedSources has a pool that is known by its sources alone: who
// sends with one of them by another way is not of the pool.
func TestGatewaySpoofedSources(t *testing.T) {
	w := newGatewayWorld(t, "build1", "deploy1")
	w.tlsHost(42, "deploy.example")
	d := w.start(strings.Replace(buildPools, "    interfaces: [br-deploy]\n", "", 1), "")
	liar, owner := w.runners["build1"], w.runners["deploy1"]
	watch := w.watch()
	for _, pair := range [][2]string{{owner.ip, liar.gate}, {owner.ip6, liar.gate6}} {
		src, gate := netip.MustParseAddr(pair[0]), netip.MustParseAddr(pair[1])
		for _, to := range []netip.Addr{gate, attackerAt(1, src)} {
			liar.sendRaw(ipPacket(src, to, unix.IPPROTO_UDP, udpDatagram(src, to, 53, question("deploy.example."))))
			d.wait("an event of it", func(e event) bool {
				return e.text("kind") == "conn" && e.text("ip") == to.String() && e.text("iface") == liar.bridge && e.text("phase") == "refused"
			})
		}
	}
	watch.checkNothing(t, "a question in another's name")
	for _, e := range d.events() {
		if e.text("kind") == "dns" {
			t.Errorf("it was heard: %v", e)
		}
	}
	if asked := w.zone.questions(); len(asked) > 0 {
		t.Errorf("it was asked: %v", asked)
	}
	if addr, err := owner.lookup(t, "deploy.example", false); err != nil || addr.String() != w.sites["deploy.example"].ip {
		t.Errorf("the pool itself is answered with %s, %v", addr, err)
	}
}
