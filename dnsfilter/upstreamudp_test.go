package dnsfilter

import (
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sallyport/dnsfilter/dnstest"
)

func TestForgeriesAreIgnoredAndTheWaitGoesOn(t *testing.T) {
	for name, decoy := range map[string]dnstest.Decoy{
		"another ID":       dnstest.WrongID,
		"another name":     dnstest.WrongName,
		"another type":     dnstest.WrongType,
		"a query":          dnstest.NotAnAnswer,
		"another opcode":   dnstest.OtherOpcode,
		"no question":      dnstest.NoQuestion,
		"another source":   dnstest.WrongSource,
		"case not echoed":  func(m *dns.Msg) { m.Question[0].Name = strings.ToUpper(m.Question[0].Name) },
		"another class":    func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS },
		"two questions":    func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) },
		"a name below it":  func(m *dns.Msg) { m.Question[0].Name = "a." + m.Question[0].Name },
		"nothing but junk": func(m *dns.Msg) { *m = dns.Msg{} },
	} {
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			server := dnstest.NewServer(t, dnstest.Zone(t, testAnswer))
			server.SetFaults(dnstest.Faults{Decoys: []dnstest.Decoy{decoy, decoy, decoy}})
			wantAddr(t, asking(t, upstreamConfig{}, server.Addr().String()))
			if n := server.Packets(); n != 1 {
				t.Errorf("asked %d times; the true answer came after the forged ones", n)
			}
		})
	}
}

func TestLostDatagramIsSentAgain(t *testing.T) {
	noLeaks(t)
	server := dnstest.NewServer(t, dnstest.Zone(t, testAnswer))
	server.SetFaults(dnstest.Faults{Drop: 2})
	wantAddr(t, asking(t, upstreamConfig{}, server.Addr().String()))
	if n := server.Packets(); n != 3 {
		t.Errorf("sent %d datagrams, want 3", n)
	}
}

func TestTruncatedAnswerIsAskedForOverTCP(t *testing.T) {
	noLeaks(t)
	server := dnstest.NewServer(t, dnstest.Zone(t, testAnswer))
	server.SetFaults(dnstest.Faults{Truncate: true})
	u := asking(t, upstreamConfig{}, server.Addr().String())
	wantAddr(t, u)
	wantAddr(t, u)
	var protos []string
	for _, query := range server.Received() {
		protos = append(protos, query.Proto)
	}
	if got := strings.Join(protos, " "); got != "udp tcp udp tcp" {
		t.Errorf("asked over %s", got)
	}
	if n := server.Packets(); n != 3 {
		t.Errorf("%d datagrams and connections, want two and one", n)
	}
}

func TestUpstreamThatLosesCaseIsRemembered(t *testing.T) {
	noLeaks(t)
	server := dnstest.NewServer(t, dnstest.Zone(t, testAnswer))
	server.SetFaults(dnstest.Faults{LoseCase: true})
	u := asking(t, upstreamConfig{}, server.Addr().String())
	const name = "a-name-with-enough-letters-never-to-come-out-in-lower-case.example"
	for want := 2; want < 6; want++ { // two for the first, one for each after it
		reply, _, err := ask(t, u, name)
		if err != nil || reply.Rcode != dns.RcodeNameError {
			t.Fatalf("got %v, %v", reply, err)
		}
		if n := server.Packets(); n != want {
			t.Fatalf("%d datagrams, want %d", n, want)
		}
	}
	server.SetFaults(dnstest.Faults{})
	udp := u.list[0].transport.(*udpTransport)
	if till := time.Unix(0, udp.lowerTill.Load()); time.Until(till) > caseMemory {
		t.Errorf("remembered until %v", till)
	}
	udp.lowerTill.Store(time.Now().UnixNano())
	if _, _, err := ask(t, u, name); err != nil {
		t.Fatal(err)
	}
	queries := server.Queries()
	if got := queries[len(queries)-1].Name; got == strings.ToLower(got) {
		t.Errorf("asked for %q; the memory is over", got)
	}
}

func TestUpstreamThatAnswersInItsOwnCase(t *testing.T) {
	noLeaks(t)
	zone := dnstest.Zone(t, testAnswer)
	server := dnstest.NewServer(t, func(w dns.ResponseWriter, query *dns.Msg) {
		query.Question[0].Name = strings.ToUpper(query.Question[0].Name)
		zone(w, query)
	})
	wantAddr(t, asking(t, upstreamConfig{}, server.Addr().String()))
}

func TestPortsIDsAndCaseAreUnpredictable(t *testing.T) {
	noLeaks(t)
	server := dnstest.NewServer(t, dnstest.Zone(t))
	u := asking(t, upstreamConfig{}, server.Addr().String())
	const count = 200
	for range count {
		if _, _, err := ask(t, u, "some-name-of-many-letters.example"); err != nil {
			t.Fatal(err)
		}
	}
	ports, ids, names := map[uint16]int{}, map[uint16]int{}, map[string]int{}
	var last uint16
	next := 0
	for _, query := range server.Received() {
		port := query.From.Port()
		ports[port]++
		ids[query.Msg.Id]++
		names[query.Msg.Question[0].Name]++
		if port == last+1 || port == last+2 {
			next++
		}
		last = port
	}
	// Of 200 draws from 28,232 ports about 0.7 collide, from 65,536 IDs 0.3.
	if len(ports) < count-12 || len(ids) < count-8 || len(names) < count-8 || next > 10 {
		t.Errorf("of %d questions: %d ports (%d in a row), %d IDs, %d spellings", count, len(ports), next, len(ids), len(names))
	}
}
