package dnsfilter_test

import (
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"sallyport/dnsfilter"
)

// TestTheResolverThatWasWanted holds that a record names a foreign resolver
// only, also where the question is refused or no question at all.
func TestTheResolverThatWasWanted(t *testing.T) {
	foreign := netip.MustParseAddr("198.51.100.53")
	for _, row := range []struct {
		says   string
		wanted string // "" is unknown
		want   string
	}{
		{"a foreign one", "198.51.100.53", "198.51.100.53"},
		{"a foreign one, mapped into IPv6", "::ffff:198.51.100.53", "198.51.100.53"},
		{"one that clients are meant to ask", "10.0.0.2", ""},
		{"us", "127.0.0.1", ""},
		{"nobody knows", "", ""},
	} {
		t.Run(row.says, func(t *testing.T) {
			asked := make(chan netip.AddrPort, 8)
			w := start(t, "\n  build: {sources: [127.0.0.1/32], allow: [good.example]}\n", reply(t, []string{"%s 60 IN A 140.82.121.4"}), func(cfg *dnsfilter.Config) {
				cfg.IsForeign = func(addr netip.Addr) bool { return addr == foreign }
				cfg.Wanted = func(client netip.AddrPort) netip.Addr {
					asked <- client
					addr, _ := netip.ParseAddr(row.wanted)
					return addr
				}
			})
			for _, name := range []string{"good.example.", "evil.example."} {
				w.ask(question(name, dns.TypeA))
				if got := w.last().Resolver; got.IsValid() != (row.want != "") || row.want != "" && got.String() != row.want {
					t.Errorf("%s: %s, want %q", name, got, row.want)
				}
				if client := <-asked; client.Addr().String() != "127.0.0.1" || client.Port() == 0 {
					t.Errorf("it is asked for %s", client)
				}
			}
			w.send("127.0.0.1", []byte("\x12\x34\x01\x00\x00\x02\x00\x00\x00\x00\x00\x00\x03www"))
			if got := w.last().Resolver; got.IsValid() != (row.want != "") {
				t.Errorf("garbage: %s", got)
			}
		})
	}
}
