package test

import (
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// A way is one that packets may take out of a container.
type way struct {
	name string
	args []string
	open bool // to a container on the outer network, which shows that the probe works
}

// ways are those past the gate. The host is this machine, with a server on
// every address.
func (f *fleet) ways(gate, world string) []way {
	f.t.Helper()
	tcp, udp := listenEverywhere(f.t)
	ways := []way{
		{"TCP to the allowed host", []string{"curl", "-sfk", "-m", "3", "https://" + world + "/"}, true},
		{"TCP to a name", []string{"curl", "-sfk", "-m", "3", "https://evil.example/"}, true},
		{"UDP to the allowed host", []string{"standin", "udp", world + ":4433"}, true},
		{"ICMP to the allowed host", []string{"busybox", "ping", "-c", "1", "-W", "2", world}, true},
		{"DNS at a resolver outside", []string{"busybox", "timeout", "4", "busybox", "nslookup", "leak.allowed.example", world}, true},
		{"DNS of a refused name by Docker's resolver", []string{"busybox", "nslookup", "leak1.evil.example", "127.0.0.11"}, true},
		{"DNS of a refused name by the gate", []string{"busybox", "nslookup", "leak2.evil.example", gate}, false},
		{"DNS at a public address", []string{"busybox", "timeout", "3", "busybox", "nslookup", "allowed.example", "192.0.2.1"}, false},
		{"TCP to a public address", []string{"busybox", "nc", "-w", "2", "192.0.2.1", "443"}, false},
		{"TCP to the metadata service", []string{"busybox", "nc", "-w", "2", "169.254.169.254", "80"}, false},
		{"ICMP to a public address", []string{"busybox", "ping", "-c", "1", "-W", "2", "192.0.2.1"}, false},
		{"admin of the gate", []string{"curl", "-s", "-m", "3", "http://" + gate + ":9180/metrics"}, false},
		{"admin through the gate", []string{"curl", "-sf", "-m", "3", "-x", "http://" + gate + ":3128", "http://127.0.0.1:9180/metrics"}, false},
	}
	for what, host := range map[string]string{"its own network": f.gateway(f.inner), "the network outside": f.gateway(f.outer)} {
		open := host == f.gateway(f.outer)
		ways = append(ways,
			way{"TCP to the host on " + what, []string{"curl", "-sf", "-m", "3", fmt.Sprintf("http://%s:%d/", host, tcp)}, open},
			way{"DNS to the host on " + what, []string{"standin", "udp", net.JoinHostPort(host, strconv.Itoa(udp))}, open},
			way{"TCP to the host on " + what + " through the gate", []string{"curl", "-sf", "-m", "3", "-x", "http://" + gate + ":3128", fmt.Sprintf("http://%s:%d/", host, tcp)}, false})
	}
	return ways
}

// listenEverywhere serves HTTP, and echoes datagrams, on every address of this
// machine, as a resolver or an agent of the host may. It gives the ports.
func listenEverywhere(t *testing.T) (tcp, udp int) {
	t.Helper()
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	done := make(chan struct{}, 2)
	go func() {
		_ = server.Serve(l)
		done <- struct{}{}
	}()
	conn, err := net.ListenPacket("udp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer func() { done <- struct{}{} }()
		datagram := make([]byte, 64)
		for {
			n, from, err := conn.ReadFrom(datagram)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(datagram[:n], from)
		}
	}()
	t.Cleanup(func() {
		server.Close()
		conn.Close()
		<-done
		<-done
	})
	return l.Addr().(*net.TCPAddr).Port, conn.LocalAddr().(*net.UDPAddr).Port
}

// checkNoOtherWay tries the ways past the gate, as root, from the runner, from
// one that may also set its routes and has the gate as its router, and from a
// container outside, for which those marked open work.
func (f *fleet) checkNoOtherWay(gate, world string) {
	t := f.t
	t.Helper()
	if out, err := f.exec("router", "busybox", "ip", "route", "replace", "default", "via", gate); err != nil {
		t.Fatal(out)
	}
	var probes sync.WaitGroup
	turns := make(chan struct{}, 12) // at once
	for _, w := range f.ways(gate, world) {
		for _, name := range []string{"runner", "router", "free"} {
			probes.Go(func() {
				turns <- struct{}{}
				defer func() { <-turns }()
				out, err := f.exec(name, w.args...)
				switch {
				case name != "free" && err == nil:
					t.Errorf("%s works from %s\n%s", w.name, name, out)
				case name == "free" && w.open && err != nil:
					t.Errorf("%s: the probe does not work: %v\n%s", w.name, err, out)
				}
			})
		}
	}
	probes.Wait()
	// The tools themselves work: the allowed name resolves, by the gate and by
	// Docker's resolver, which asks the gate.
	for _, server := range []string{gate, "127.0.0.11"} {
		if out, err := f.exec("runner", "busybox", "nslookup", "-type=a", "allowed.example", server); err != nil || !strings.Contains(out, world) {
			t.Errorf("the allowed name at %s: %v %s", server, err, out)
		}
	}
	f.checkTraces(world)
}

// checkTraces reads who heard of the probes: the gate of each name, the
// resolver outside of the allowed one and of what the free container asked.
func (f *fleet) checkTraces(world string) {
	f.t.Helper()
	gate := f.logs("gate")
	for _, name := range []string{"leak1.evil.example", "leak2.evil.example"} {
		if !strings.Contains(gate, `"name":"`+name) {
			f.t.Errorf("the gate has no event of %s\n%s", name, gate)
		}
	}
	if strings.Contains(gate, "T0/secret") {
		f.t.Errorf("the webhook's URL is in the log\n%s", gate)
	}
	seen := f.logs("world")
	if !strings.Contains(seen, `"question":"allowed.example"`) || strings.Contains(seen, `"question":"leak2.`) {
		f.t.Errorf("the resolver outside saw\n%s", seen)
	}
	free := f.address("free", f.outer) // asked leak1 itself
	gateOutside := f.address("gate", f.outer)
	lines := strings.Split(seen, "\n")
	for i, line := range lines {
		from := regexp.MustCompile(`"from":"([^"]*):\d+"`).FindStringSubmatch(line)
		if from != nil && from[1] != free && from[1] != gateOutside {
			f.t.Errorf("a datagram from %s at %s: %s", from[1], world, line)
		}
		if from != nil && from[1] == gateOutside && i+1 < len(lines) && strings.Contains(lines[i+1], "leak") {
			f.t.Errorf("the gate asked for a refused name: %s", lines[i+1])
		}
	}
}
