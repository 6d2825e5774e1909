package test

import (
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// layerCases are names with the one verdict that every layer gives them.
// plain marks the names that the layers can all be asked about as they stand;
// a DNS message, for one, has no way to say "[name]".
var layerCases = []struct {
	name, want string
}{
	{"allowed.example", "allowed"},
	{"ALLOWED.Example", "allowed"},
	{"allowed.example.", "allowed"},
	{"www.allowed.example", "not-in-allowlist"},
	{"xallowed.example", "not-in-allowlist"},
	{"allowed.example.evil.test", "not-in-allowlist"},
	{"a.wild.example", "allowed"},
	{"a.b.wild.example", "allowed"},
	{"wild.example", "not-in-allowlist"},
	{"xwild.example", "not-in-allowlist"},
	{"glb-7.part.example", "allowed"},
	{"glb-.part.example", "not-in-allowlist"},
	{"glb-7.x.part.example", "not-in-allowlist"},
	{"denied.wild.example", "denied-by-rule"},
	{"old.example", "expired-rule"},
	{"xn--bcher-kva.example", "allowed"},
	{"cloudflare-dns.com", "resolver-bypass"},
	{"127.1", "bad-host"},
	{"0x7f.1", "bad-host"},
	{"2130706433", "bad-host"},
	{"allowed..example", "bad-host"},
	{strings.Repeat("a", 64) + ".example", "bad-host"},
}

// layersPools allows the names of layerCases on port 80, so that one rule
// serves CONNECT and absolute URIs alike.
const layersPools = `
  build:
    sources: [127.0.0.0/8]
    resolves_to: [127.0.0.0/8]
    allow:
      - allowed.example:80
      - "*.wild.example:80"
      - "glb-*.part.example:80"
      - "bücher.example:80"
      - {host: old.example, ports: [80], expires: 2020-01-01}
    deny: [denied.wild.example]
`

func TestThreeLayersGiveOneVerdict(t *testing.T) {
	needRoot(t) // the origin is on port 80
	d := prepare(t, config{})
	upstream := newZone(t)
	web := httpOrigin(t, d.neighbour(2)+":80", nil)
	upstream.setAnswer(func(q dns.Question) []dns.RR {
		if q.Qtype != dns.TypeA {
			return nil
		}
		rr, err := dns.NewRR(q.Name + " 60 IN A " + web.ip)
		if err != nil {
			return nil
		}
		return []dns.RR{rr}
	})
	d.write(upstream.addr, layersPools)
	d.run()

	for _, c := range layerCases {
		t.Run(c.name, func(t *testing.T) {
			if got := reasonByCONNECT(t, d, c.name); got != c.want {
				t.Errorf("CONNECT says %s, want %s", got, c.want)
			}
			if got := reasonByURI(t, d, c.name); got != c.want {
				t.Errorf("an absolute URI says %s, want %s", got, c.want)
			}
			if got, asked := reasonByDNS(t, d, c.name); asked && got != c.want {
				t.Errorf("DNS says %s, want %s", got, c.want)
			}
		})
	}
	for _, question := range upstream.questions() {
		name, _, _ := strings.Cut(question, " ")
		for _, c := range layerCases {
			if c.want != "allowed" && strings.EqualFold(name, strings.TrimSuffix(c.name, ".")) {
				t.Errorf("the refused name %s went upstream", name)
			}
		}
	}
}

func reasonByCONNECT(t *testing.T, d *daemon, name string) string {
	r := connect(t, d.proxy, name+":80")
	if r.code == 200 {
		r.conn.Close()
		return "allowed"
	}
	return r.header.Get("Sallyport-Reason")
}

func reasonByURI(t *testing.T, d *daemon, name string) string {
	r := send(t, d.proxy, "GET http://"+name+"/ HTTP/1.1\r\nHost: "+name+"\r\nConnection: close\r\n\r\n")
	if r.code == 200 {
		return "allowed"
	}
	return r.header.Get("Sallyport-Reason")
}

// reasonByDNS asks over DNS and reads the reason from the extended error. Names
// that no DNS message can carry are not asked.
func reasonByDNS(t *testing.T, d *daemon, name string) (reason string, asked bool) {
	if _, ok := dns.IsDomainName(name); !ok {
		return "", false
	}
	r := ask(t, d.dns, name, dns.TypeA)
	if r.Rcode == dns.RcodeSuccess && len(r.Answer) > 0 {
		return "allowed", true
	}
	if opt := r.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if ede, ok := o.(*dns.EDNS0_EDE); ok && ede.InfoCode == dns.ExtendedErrorCodeBlocked {
				for _, word := range strings.FieldsFunc(ede.ExtraText, func(r rune) bool { return strings.ContainsRune(" ,:()", r) }) {
					if strings.Contains(word, "-") {
						return word, true
					}
				}
				return ede.ExtraText, true
			}
		}
	}
	return dns.RcodeToString[r.Rcode], true
}
