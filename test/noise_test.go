package test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// noisyDaemon starts a daemon that delivers to s, with one pool for the flood,
// one for each of three victims, and no other allowed name than github.com.
func noisyDaemon(t *testing.T, s *slack) *daemon {
	t.Helper()
	d := prepare(t, config{})
	d.extra = fmt.Sprintf("\nlimits: {dns_per_client: 1000000}\ndns: {upstreams: [%q], search: [corp.example]}\n", newZone(t).addr)
	d.deliverTo(s)
	pools := "  flood: {sources: [127.0.0.0/8], allow: [github.com]}\n"
	for i := range 3 {
		pools += fmt.Sprintf("  victim%d: {sources: [%s/32], allow: [github.com]}\n", i, d.neighbour(201+i))
	}
	d.write("", pools)
	d.run()
	return d
}

// connectFrom asks the proxy for a tunnel, from an address of this machine.
func connectFrom(t *testing.T, local, proxy, target string) {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(local)}, Timeout: patience}
	conn, err := dialer.Dial("tcp", proxy)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", target)
	if r, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || r.StatusCode != http.StatusForbidden {
		t.Errorf("CONNECT %s: %v %v", target, r, err)
	}
}

// askMany asks for n names that nobody has, from an address of this machine,
// with up to 32 questions under way; asked counts the answers.
func askMany(t *testing.T, local, server string, n int, asked *atomic.Int64) {
	dialer := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(local)}}
	conn, err := dialer.Dial("udp", server)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	window := make(chan struct{}, 32)
	var reading sync.WaitGroup
	reading.Go(func() {
		buffer := make([]byte, 1500)
		for range n {
			_ = conn.SetReadDeadline(time.Now().Add(patience))
			if _, err := conn.Read(buffer); err != nil {
				t.Errorf("an answer is missing: %v", err)
				conn.Close() // the writes end, too
				for range n {
					select {
					case <-window:
					default:
					}
				}
				return
			}
			asked.Add(1)
			<-window
		}
	})
	for i := range n {
		m := new(dns.Msg).SetQuestion(fmt.Sprintf("n%016x.example.", rand.Uint64()), dns.TypeA)
		m.Id = uint16(i)
		text, err := m.Pack()
		if err != nil {
			t.Error(err)
			break
		}
		window <- struct{}{}
		if _, err := conn.Write(text); err != nil {
			break
		}
	}
	reading.Wait()
}

// TestAFloodDelaysNoMetadataAccess asks for 100,000 random names from eight
// clients of one pool; meanwhile a client of each of three other pools tries the
// metadata service, and a name.
func TestAFloodDelaysNoMetadataAccess(t *testing.T) {
	const names, clients = 100_000, 8
	s := newSlack(t)
	d := noisyDaemon(t, s)
	var asked atomic.Int64
	var flooding sync.WaitGroup
	for i := range clients {
		flooding.Go(func() { askMany(t, d.neighbour(10+i), d.dns, names/clients, &asked) })
	}
	var delays []time.Duration
	for i := range 3 {
		eventually(t, "the flood goes on", func() bool { return asked.Load() >= int64(names*(i+1)/5) || t.Failed() }, d.dump)
		begun := time.Now()
		connectFrom(t, d.neighbour(201+i), d.proxy, "169.254.169.254:80")
		connectFrom(t, d.neighbour(201+i), d.proxy, fmt.Sprintf("drop%d.evil.example:443", i))
		told := func(words ...string) (at time.Time) {
			for _, m := range s.received() {
				if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(m.text, word) }) {
					return m.at
				}
			}
			return time.Time{}
		}
		victim := fmt.Sprintf("victim%d", i)
		eventually(t, "the alert metadata-access of "+victim, func() bool { return !told("metadata-access", victim).IsZero() }, d.dump)
		delays = append(delays, told("metadata-access", victim).Sub(begun))
		eventually(t, "the alert denied-egress of "+victim, func() bool { return !told(fmt.Sprintf("drop%d.evil.example", i)).IsZero() }, d.dump)
	}
	during := asked.Load()
	flooding.Wait()
	t.Logf("the flood was at %d of %d; metadata-access came after %v", during, names, delays)
	slices.Sort(delays)
	if delays[1] > 2*time.Second {
		t.Errorf("metadata-access came after %v", delays)
	}
	refused := 0
	for _, e := range d.events() {
		if e.text("kind") == "dns" && e.text("verdict") == "deny" && e.text("pool") == "flood" {
			refused++
		}
	}
	if refused != names {
		t.Errorf("%d questions refused, %d lines in the log", names, refused)
	}
}

// TestAPlantedSearchSuffixHidesNothing has a job that asks as a client with a
// search suffix of the attacker's would, for allowed names that exist and for
// some that do not, over and over. The suffix of dns.search is the one that counts.
func TestAPlantedSearchSuffixHidesNothing(t *testing.T) {
	s := newSlack(t)
	d := noisyDaemon(t, s)
	for range 50 {
		ask(t, d.dns, "github.com.", dns.TypeA)
		ask(t, d.dns, "github.com.corp.example.", dns.TypeA)
		ask(t, d.dns, "github.com.evil.example.", dns.TypeA)
		ask(t, d.dns, "github.com.evil.example.corp.example.", dns.TypeA)
	}
	connectFrom(t, d.ip, d.proxy, "github.com.evil.example:443")
	d.wait("the alert about the planted suffix", func(e event) bool {
		return e.text("alert") == "denied-egress" && e.text("host") == "github.com.evil.example" && e.number("count") == 51
	})
	for _, e := range d.events() {
		own := e.text("name") == "github.com.corp.example"
		if e.text("kind") == "dns" && (e["search"] == true) != own {
			t.Errorf("search is %v in %v", e["search"], e)
		}
		if e.text("alert") != "" && e.text("host") == "github.com.corp.example" {
			t.Errorf("an echo of dns.search is an alert: %v", e)
		}
	}
}

// TestAReloadClosesAnAlert and tells those who were told of it.
func TestAReloadClosesAnAlert(t *testing.T) {
	s := newSlack(t)
	d := noisyDaemon(t, s)
	connectFrom(t, d.ip, d.proxy, "mirror.example:443")
	connectFrom(t, d.ip, d.proxy, "evil.example:443")
	eventually(t, "the message", func() bool {
		all := ""
		for _, m := range s.received() {
			all += m.text
		}
		return strings.Contains(all, "mirror.example") && strings.Contains(all, "evil.example")
	}, d.dump)
	d.write("", "  flood: {sources: [127.0.0.0/8], allow: [github.com, mirror.example]}\n")
	line := d.wait("the line that closes the alert", func(e event) bool { return e.text("closed") != "" })
	if line.text("host") != "mirror.example" || line.number("count") != 1 || !strings.HasPrefix(line.text("closed"), "allowed since policy generation ") {
		t.Errorf("the line is %v", line)
	}
	eventually(t, "the message that it is closed", func() bool {
		m := s.received()
		return strings.Contains(m[len(m)-1].text, "allowed since policy generation")
	}, d.dump)
	if m := s.received(); strings.Contains(m[len(m)-1].text, "evil.example") {
		t.Errorf("what is not allowed is closed, too: %s", m[len(m)-1].text)
	}
}
