package dnsfilter_test

import (
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/publicsuffix"

	"sallyport/allowlists"
	"sallyport/dnsfilter"
)

// meterClient is who asks in these tests, unless they say otherwise.
var meterClient = netip.MustParseAddr("10.20.0.7")

// metering is a meter with a clock.
type metering struct {
	t     *testing.T
	meter *dnsfilter.Meter
	now   time.Time
}

func newMetering(t *testing.T, known func(pool, name string) bool) *metering {
	return &metering{t: t, meter: dnsfilter.NewMeter(dnsfilter.MeterLimits{}, known), now: time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)}
}

// carried is a question for an address, as the guard puts it.
func (m *metering) carried(name string) *dnsfilter.Carried {
	m.t.Helper()
	host, err := allowlists.ParseHost(name)
	if err != nil {
		m.t.Fatal(name, err)
	}
	return &dnsfilter.Carried{Pool: "build", Client: meterClient, Name: host.String(), Type: 1, Leaks: true, Repeats: true}
}

// asks asks for one name after the other until one is refused, and says how
// many were not, and how many bytes of name they had.
func (m *metering) asks(pace time.Duration, most int, next func(i int) *dnsfilter.Carried) (passed, bytes int, tally dnsfilter.Tally) {
	m.t.Helper()
	for i := range most {
		q := next(i)
		var ok bool
		if tally, ok = m.meter.Admit(q, m.now); !ok {
			return passed, bytes, tally
		}
		passed++
		bytes += len(q.Name)
		m.now = m.now.Add(pace)
	}
	return passed, bytes, tally
}

// label is a random label of n letters and digits, the i-th.
func label(i, n int) string {
	random := rand.New(rand.NewPCG(uint64(i), 7))
	raw := make([]byte, n)
	for at := 0; at+8 <= len(raw); at += 8 {
		binary.BigEndian.PutUint64(raw[at:], random.Uint64())
	}
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(raw))[:n]
}

// TestTunnelsAreRefused has the tricks of those who write data into names. Each
// is stopped by the limit that is named, after at most so many questions.
func TestTunnelsAreRefused(t *testing.T) {
	type question = *dnsfilter.Carried
	for _, tt := range []struct {
		what  string
		pace  time.Duration
		next  func(m *metering, i int) question
		limit string
		most  int // questions let through
	}{
		{"200 bytes in four labels, as fast as can be", 0, func(m *metering, i int) question {
			return m.carried(label(4*i, 50) + "." + label(4*i+1, 50) + "." + label(4*i+2, 50) + "." + label(4*i+3, 46) + ".tunnel.example")
		}, dnsfilter.LimitTunnelBytes, 42},
		{"one label of 40 bytes every 2 s", 2 * time.Second, func(m *metering, i int) question {
			return m.carried(label(i, 40) + ".tunnel.example")
		}, dnsfilter.LimitTunnelNames, 100},
		{"one label of 40 bytes every 10 s, under the limits of the window", 10 * time.Second, func(m *metering, i int) question {
			return m.carried(label(i, 40) + ".tunnel.example")
		}, dnsfilter.LimitTunnelDayBytes, 65536/41 + 1},
		{"one label of 60 bytes each minute, all day", time.Minute, func(m *metering, i int) question {
			return m.carried(label(i, 60) + ".tunnel.example")
		}, dnsfilter.LimitTunnelDayBytes, 65536/61 + 1},
		{"two names under a TTL of 0, a bit a question", time.Millisecond, func(m *metering, i int) question {
			return m.carried([]string{"a", "b"}[i%2] + ".tunnel.example")
		}, dnsfilter.LimitTunnelBytes, 65536 / 4},
		{"a thousand names of before, in an order that says something", 0, func(m *metering, i int) question {
			if i < 1000 {
				m.now = m.now.Add(10 * time.Second)
			}
			return m.carried(fmt.Sprintf("%d.tunnel.example", i*7919%1000))
		}, dnsfilter.LimitTunnelBytes, 1000 + 65536/12},
		{"types instead of names", 0, func(m *metering, i int) question {
			q := m.carried("a.tunnel.example")
			q.Type = uint16(200 + i%50)
			return q
		}, dnsfilter.LimitTunnelBytes, 65536/13 + 1},
		{"letters that people would choose", 0, func(m *metering, i int) question {
			return m.carried("mi" + strings.NewReplacer("0", "ba", "1", "ce", "2", "di", "3", "fo", "4", "gu", "5", "ha", "6", "je", "7", "ki", "8", "lo", "9", "mu").Replace(fmt.Sprint(i)) + ".tunnel.example")
		}, dnsfilter.LimitTunnelNames, 400},
		{"TXT under labels of a service", 0, func(m *metering, i int) question {
			q := m.carried("_" + label(i, 60) + "._" + label(i+1, 60) + ".svc.tunnel.example")
			q.Type = 16
			return q
		}, dnsfilter.LimitTunnelBytes, 64},
		{"A, AAAA and HTTPS of each name", 0, func(m *metering, i int) question {
			q := m.carried(label(i/3, 40) + ".tunnel.example")
			q.Type = []uint16{1, 28, 65}[i%3]
			return q
		}, dnsfilter.LimitTunnelNames, 300},
		{"below two levels of a wildcard", 0, func(m *metering, i int) question {
			return m.carried(label(i, 20) + "." + label(i/10, 20) + ".wild.tunnel.example")
		}, dnsfilter.LimitTunnelNames, 100},
		{"a domain of his own under a private suffix", 0, func(m *metering, i int) question {
			return m.carried(label(i, 20) + ".x.duckdns.org")
		}, dnsfilter.LimitTunnelNames, 100},
		{"many domains of his own under a private suffix", 0, func(m *metering, i int) question {
			return m.carried(label(i, 20) + "." + label(i/50, 8) + ".duckdns.org")
		}, dnsfilter.LimitTunnelNames, 400},
		{"data in the domains under a private suffix", 0, func(m *metering, i int) question {
			return m.carried(label(i, 40) + ".duckdns.org")
		}, dnsfilter.LimitTunnelNames, 400},
	} {
		t.Run(tt.what, func(t *testing.T) {
			m := newMetering(t, nil)
			passed, _, tally := m.asks(tt.pace, 200_000, func(i int) question { return tt.next(m, i) })
			if tally.Over != tt.limit || passed > tt.most+meterTrickleOfTests || passed < tt.most/2 {
				t.Errorf("%d questions passed, then %+v", passed, tally)
			}
		})
	}
}

// meterTrickleOfTests is what may leave in a minute beyond a limit of bytes.
const meterTrickleOfTests = 8

// TestASlowTunnelIsBounded sends all that the limits let pass for three days:
// no day has more than dns_tunnel_day_bytes and one question.
func TestASlowTunnelIsBounded(t *testing.T) {
	for _, pace := range []time.Duration{2 * time.Second, 10 * time.Second, 30 * time.Second} {
		m := newMetering(t, nil)
		var sent []struct {
			at    time.Time
			bytes int
		}
		first, end := 0, m.now.Add(72*time.Hour)
		for i := 0; m.now.Before(end); i++ {
			q := m.carried(label(i, 40) + ".tunnel.example")
			if _, ok := m.meter.Admit(q, m.now); ok {
				sent = append(sent, struct {
					at    time.Time
					bytes int
				}{m.now, 41})
			} else if first == 0 {
				first = len(sent) * 41
			}
			m.now = m.now.Add(pace)
		}
		worst := 0
		for i := range sent {
			sum := 0
			for _, later := range sent[i:] {
				if later.at.Sub(sent[i].at) < 24*time.Hour {
					sum += later.bytes
				}
			}
			worst = max(worst, sum)
		}
		if worst > 64<<10 || first > 64<<10 {
			t.Errorf("at one name each %s, %d bytes left before the first refusal and %d in the worst day", pace, first, worst)
		}
		t.Logf("one name each %s: %d bytes before the first refusal, %d in the worst day", pace, first, worst)
	}
}

// TestKnownNamesGoOn asks for names that worked before the limit was reached.
func TestKnownNamesGoOn(t *testing.T) {
	m := newMetering(t, nil)
	for _, name := range []string{"registry", "cdn"} {
		if _, ok := m.meter.Admit(m.carried(name+".tunnel.example"), m.now); !ok {
			t.Fatal("refused at once")
		}
	}
	m.asks(0, 1000, func(i int) *dnsfilter.Carried { return m.carried(label(i, 20) + ".tunnel.example") })
	for range 100 {
		if tally, ok := m.meter.Admit(m.carried("registry.tunnel.example"), m.now); !ok {
			t.Fatalf("a known name is refused over the limit of names: %+v", tally)
		}
	}
	if _, ok := m.meter.Admit(m.carried("new.tunnel.example"), m.now); ok {
		t.Error("a new name is not refused")
	}
	if _, ok := m.meter.Admit(m.carried("new.other.example"), m.now); !ok {
		t.Error("another domain is refused")
	}
	other := m.carried("new.tunnel.example")
	other.Client = netip.MustParseAddr("10.20.0.8")
	if _, ok := m.meter.Admit(other, m.now); !ok {
		t.Error("another client is refused")
	}
	other = m.carried("new.tunnel.example")
	other.Pool = "deploy"
	if _, ok := m.meter.Admit(other, m.now); !ok {
		t.Error("another pool is refused")
	}
	m.now = m.now.Add(12 * time.Minute)
	if _, ok := m.meter.Admit(m.carried("new.tunnel.example"), m.now); !ok {
		t.Error("a new name is refused after the window")
	}
}

// TestKnownNamesTrickleOverTheBytes uses the bytes up, and then asks for what
// worked: a few a minute leave, and no more.
func TestKnownNamesTrickleOverTheBytes(t *testing.T) {
	m := newMetering(t, nil)
	m.asks(0, 100_000, func(i int) *dnsfilter.Carried { return m.carried([]string{"a", "b"}[i%2] + ".tunnel.example") })
	for range 3 {
		m.now = m.now.Add(time.Minute)
		passed := 0
		for i := range 100 {
			if _, ok := m.meter.Admit(m.carried([]string{"a", "b"}[i%2]+".tunnel.example"), m.now); ok {
				passed++
			}
		}
		if passed != meterTrickleOfTests {
			t.Errorf("%d known names left in a minute", passed)
		}
	}
}

// TestNamesOfTheBaselineAreNoNewNames floods names that a pool's baseline has,
// as one who planted them would: their number is no limit, their bits are.
func TestNamesOfTheBaselineAreNoNewNames(t *testing.T) {
	m := newMetering(t, func(pool, name string) bool {
		return pool == "build" && strings.HasSuffix(name, ".planted.example")
	})
	passed, _, tally := m.asks(0, 100_000, func(i int) *dnsfilter.Carried { return m.carried(label(i, 40) + ".planted.example") })
	if tally.Over != dnsfilter.LimitTunnelBytes || passed > 65536/17+1+meterTrickleOfTests || passed < 1000 {
		t.Errorf("%d planted names passed, then %+v", passed, tally)
	}
	other := m.carried(label(1, 40) + ".planted.example")
	other.Pool = "deploy"
	if tally, _ := m.meter.Admit(other, m.now); !tally.New {
		t.Error("another pool's baseline is believed")
	}
}

// TestNamesOfThePolicyAreNoNewNames asks for hosts that rules name exactly.
func TestNamesOfThePolicyAreNoNewNames(t *testing.T) {
	m := newMetering(t, nil)
	listed := func(i int) *dnsfilter.Carried {
		q := m.carried(label(i, 40) + ".corp.example")
		q.Listed = true
		return q
	}
	if passed, _, tally := m.asks(time.Second, 300, listed); passed != 300 {
		t.Errorf("refused after %d names of the policy: %+v", passed, tally)
	}
}

// TestServicesThatCarryDataAreNotCounted floods names of a block list; a zone
// that only looks like one is nobody's excuse.
func TestServicesThatCarryDataAreNotCounted(t *testing.T) {
	for name, counted := range map[string]bool{
		"zen.spamhaus.org": false, "sophosxl.net": false, "avqs.mcafee.com": false, "origin.asn.cymru.com": false,
		"hash.cymru.com": false, "ix.dnsbl.manitu.net": true,
		"spamhaus.org": true, "zen.spamhaus.org.tunnel.example": true, "notsophosxl.net": true, "duckdns.org": true,
	} {
		m := newMetering(t, nil)
		passed, _, _ := m.asks(0, 2000, func(i int) *dnsfilter.Carried { return m.carried(label(i, 40) + "." + name) })
		if (passed < 2000) != counted {
			t.Errorf("%d names under %s passed", passed, name)
		}
	}
}

// serviceLine is a line of the services: a zone below a registrable domain, or
// such a domain, and the address of a document that names it.
var serviceLine = regexp.MustCompile(`^([a-z0-9-]+\.)+[a-z]+ https?://([a-z0-9-]+\.)+[a-z]+/[^ ]+$`)

func TestServicesThatCarryDataHaveASource(t *testing.T) {
	text, err := os.ReadFile("meterservices.txt")
	if err != nil {
		t.Fatal(err)
	}
	zones := make(map[string]bool)
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "#") {
			continue
		}
		zone, _, _ := strings.Cut(line, " ")
		if !serviceLine.MatchString(line) || zones[zone] {
			t.Errorf("%q: write a zone once, a space, and the address of a public document that names it", line)
		}
		zones[zone] = true
		if suffix, icann := publicsuffix.PublicSuffix(zone); !icann || suffix == zone {
			t.Errorf("strangers can have names under %s", zone)
		}
	}
	if len(zones) < 10 {
		t.Errorf("%d zones", len(zones))
	}
}

// TestManyDomainsEvictNothing makes one client ask about more domains than he
// may have, and then go on where he was: his counters still stand, and what
// found no room counts together. Another client notices nothing.
func TestManyDomainsEvictNothing(t *testing.T) {
	m := newMetering(t, nil)
	m.asks(0, 1000, func(i int) *dnsfilter.Carried { return m.carried(label(i, 20) + ".tunnel.example") })
	passed, _, tally := m.asks(0, 100_000, func(i int) *dnsfilter.Carried { return m.carried("x." + fmt.Sprintf("d%d.example", i)) })
	if passed > 8192+400 || tally.Domain != "many domains" {
		t.Errorf("%d domains passed, then %+v", passed, tally)
	}
	if _, ok := m.meter.Admit(m.carried("again.tunnel.example"), m.now); ok {
		t.Error("the counters of the first domain were lost")
	}
	other := m.carried("new.tunnel.example")
	other.Client = netip.MustParseAddr("10.20.0.8")
	if _, ok := m.meter.Admit(other, m.now); !ok {
		t.Error("another client is refused")
	}
	m.now = m.now.Add(26 * time.Hour)
	m.meter.Sweep(m.now)
	if passed, _, tally := m.asks(0, 3000, func(i int) *dnsfilter.Carried { return m.carried("x." + fmt.Sprintf("e%d.example", i)) }); passed != 3000 {
		t.Errorf("a day later %d domains pass, then %+v", passed, tally)
	}
}

// TestAPlantedAlphabetIsCounted asks for names that are all in the baseline, each
// once: a job may have put them there.
func TestAPlantedAlphabetIsCounted(t *testing.T) {
	m := newMetering(t, func(string, string) bool { return true })
	passed, _, tally := m.asks(0, 20_000, func(i int) *dnsfilter.Carried { return m.carried(fmt.Sprintf("h%d.tunnel.example", i)) })
	if most := 8*8192/15 + 8; passed > most || passed < 2000 || tally.Over != dnsfilter.LimitTunnelBytes {
		t.Errorf("%d names passed, at most %d may; then %+v", passed, most, tally)
	}
}

// TestTheNamesOfADomainAreBounded counts more names than are remembered of one
// domain: the last of them is new again, the first is not.
func TestTheNamesOfADomainAreBounded(t *testing.T) {
	m := newMetering(t, nil)
	for i := range 10_000 {
		m.meter.Count(m.carried(label(i, 20)+".tunnel.example"), m.now)
	}
	if m.meter.Count(m.carried(label(0, 20)+".tunnel.example"), m.now).New {
		t.Error("the first name was forgotten")
	}
	if !m.meter.Count(m.carried(label(9999, 20)+".tunnel.example"), m.now).New {
		t.Error("ten thousand names are remembered")
	}
}

// TestManyClientsOfAPoolLeaveRoomForAnother takes all the room that a pool may.
func TestManyClientsOfAPoolLeaveRoomForAnother(t *testing.T) {
	m := newMetering(t, nil)
	for i := range 40_000 {
		q := m.carried(label(i, 20) + ".tunnel.example")
		q.Client = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		m.meter.Admit(q, m.now)
	}
	other := m.carried("new.tunnel.example")
	other.Pool = "deploy"
	if tally, ok := m.meter.Admit(other, m.now); !ok || tally.Domain != "tunnel.example" {
		t.Errorf("another pool is refused: %+v", tally)
	}
}

// TestATallyDescribes looks at the features of a tunnel.
func TestATallyDescribes(t *testing.T) {
	m := newMetering(t, nil)
	_, _, tally := m.asks(time.Second, 1000, func(i int) *dnsfilter.Carried {
		q := m.carried(label(i, 40) + ".tunnel.example")
		q.Type, q.ID, q.Missing, q.Answered = 16, fmt.Sprint("id", i), i%4 == 0, 100
		return q
	})
	if tally.Domain != "tunnel.example" || tally.Names != 100 || tally.Bytes != 4100 || tally.Questions != 100 || tally.Carriers != 100 ||
		tally.Missing != 25 || tally.Answered != 10_000 || tally.Label != 40 || tally.Entropy < 4.5 || len(tally.IDs) != 9 || tally.IDs[0] != "id0" {
		t.Errorf("%+v", tally)
	}
}

// BenchmarkMeter is what the guard adds to a question that goes upstream. Last
// on one core of a shared virtual machine: 0.9 µs and 1 allocation.
func BenchmarkMeter(b *testing.B) {
	m := dnsfilter.NewMeter(dnsfilter.MeterLimits{}, nil)
	var questions []*dnsfilter.Carried
	for i := range 64 {
		host, err := allowlists.ParseHost(fmt.Sprintf("h%d.site%d.example", i, i%8))
		if err != nil {
			b.Fatal(err)
		}
		questions = append(questions, &dnsfilter.Carried{Pool: "build", Client: meterClient, Name: host.String(), Type: 1, Leaks: true, Repeats: true})
	}
	now := time.Now()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		m.Admit(questions[i%64], now.Add(time.Duration(i)*time.Second))
	}
}
