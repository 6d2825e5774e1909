package allowlists_test

import (
	"net/netip"
	"testing"
	"time"

	"sallyport/allowlists"
)

func TestSpecialClass(t *testing.T) {
	for text, want := range map[string]string{
		// IPv4, at both ends of each row.
		"0.0.0.0": "unspecified", "0.0.0.1": "this-network", "0.255.255.255": "this-network", "1.0.0.0": "",
		"9.255.255.255": "", "10.0.0.0": "private-use", "10.255.255.255": "private-use", "11.0.0.0": "",
		"100.63.255.255": "", "100.64.0.0": "shared-address", "100.127.255.255": "shared-address", "100.128.0.0": "",
		"126.255.255.255": "", "127.0.0.1": "loopback", "127.255.255.255": "loopback", "128.0.0.0": "",
		"169.253.255.255": "", "169.254.0.0": "link-local", "169.254.169.254": "metadata", "169.254.170.2": "metadata", "169.255.0.0": "",
		"172.15.255.255": "", "172.16.0.0": "private-use", "172.31.255.255": "private-use", "172.32.0.0": "",
		"192.0.0.0": "ietf-protocol", "192.0.0.9": "", "192.0.0.10": "", "192.0.0.192": "metadata", "192.0.1.0": "",
		"192.0.2.1": "documentation", "192.88.99.1": "6to4-relay", "192.168.0.0": "private-use", "192.168.255.255": "private-use", "192.169.0.0": "",
		"198.17.255.255": "", "198.18.0.0": "benchmarking", "198.19.255.255": "benchmarking", "198.20.0.0": "",
		"198.51.100.7": "documentation", "203.0.113.9": "documentation", "168.63.129.16": "metadata", "100.100.100.200": "metadata",
		"223.255.255.255": "", "224.0.0.1": "multicast", "239.255.255.255": "multicast", "240.0.0.1": "reserved", "255.255.255.255": "broadcast",
		"140.82.121.4": "", "192.31.196.1": "", "192.52.193.1": "", "192.175.48.1": "",
		// IPv6.
		"::": "unspecified", "::1": "loopback", "::7f00:1": "ipv4-compatible", "::ffff:127.0.0.1": "ipv4-mapped", "::ffff:140.82.121.4": "ipv4-mapped",
		"::ffff:0:7f00:1": "ipv4-translated", "64:ff9b::7f00:1": "nat64", "64:ff9b:1::1": "nat64", "100::1": "discard", "100:0:0:1::1": "discard",
		"2001::1": "teredo", "2001:1::1": "", "2001:1::4": "ietf-protocol", "2001:2::1": "ietf-protocol", "2001:3::1": "", "2001:4:112::1": "", "2001:10::1": "ietf-protocol",
		"2001:20::1": "", "2001:30::1": "", "2001:200::1": "", "2001:db8::1": "documentation", "2002:7f00:1::": "6to4", "2606:50c0::1": "", "2620:4f:8000::1": "",
		"3fff::1": "documentation", "3fff:1000::": "", "4000::1": "reserved", "5f00::1": "segment-routing", "fc00::1": "unique-local", "fdff::1": "unique-local",
		"fd00:ec2::254": "metadata", "fe80::1": "link-local", "fec0::1": "reserved", "ff02::1": "multicast",
	} {
		if got := allowlists.SpecialClass(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s is %q, want %q", text, got, want)
		}
	}
	if got := allowlists.SpecialClass(netip.MustParseAddr("2606:50c0::1%eth0")); got != "zoned" {
		t.Errorf("a zoned address is %q", got)
	}
}

func TestMetadataHidesInNothing(t *testing.T) {
	for _, text := range []string{
		"169.254.169.254", "::ffff:169.254.169.254", "::169.254.169.254", "::ffff:0:169.254.169.254", "64:ff9b::169.254.169.254",
		"64:ff9b:1::169.254.169.254", "2002:a9fe:a9fe::1", "2001:0:1:2:3:4:5601:5601", "fd00:ec2::254%eth0", "168.63.129.16",
	} {
		if !allowlists.IsMetadata(netip.MustParseAddr(text)) {
			t.Errorf("%s is not seen as metadata", text)
		}
	}
	if allowlists.IsMetadata(netip.MustParseAddr("169.254.169.253")) {
		t.Error("169.254.169.253 is not metadata")
	}
}

// TestWhatLiftsASpecialAddress goes through resolves_to lists and the
// addresses that each opens for a host rule.
func TestWhatLiftsASpecialAddress(t *testing.T) {
	for _, c := range []struct {
		what, resolvesTo, addr string
		want                   string
	}{
		{"a public address needs nothing", "", "140.82.121.4", "allowed"},
		{"a private one is refused", "", "10.0.0.7", "special-address"},
		{"a private one in the list passes", "10.0.0.0/8", "10.0.0.7", "allowed"},
		{"a private one outside the list does not", "10.0.0.0/24", "10.0.1.7", "special-address"},
		{"loopback in the list passes", "127.0.0.0/8", "127.0.0.1", "allowed"},
		{"metadata is not opened by its network", "169.254.0.0/16", "169.254.169.254", "special-address"},
		{"metadata is not opened by everything", "0.0.0.0/0", "169.254.169.254", "special-address"},
		{"metadata is opened by itself", "169.254.169.254/32", "169.254.169.254", "allowed"},
		{"public metadata too", "0.0.0.0/0", "168.63.129.16", "special-address"},
		{"unspecified is never opened", "0.0.0.0/32", "0.0.0.0", "special-address"},
		{"unspecified v6 neither", "::/128", "::", "special-address"},
		{"multicast neither", "224.0.0.0/4", "224.0.0.1", "special-address"},
		{"broadcast neither", "255.255.255.255/32", "255.255.255.255", "special-address"},
		{"a mapped address is not its IPv4", "10.0.0.0/8", "::ffff:10.0.0.7", "special-address"},
		{"a mapped public address is refused", "", "::ffff:140.82.121.4", "special-address"},
		{"6to4 of a private address needs the inner one too", "2002::/16", "2002:a00:7::1", "special-address"},
		{"nat64 of metadata is not opened by nat64", "64:ff9b::/96", "64:ff9b::a9fe:a9fe", "special-address"},
		{"nat64 of a public address is opened by nat64", "64:ff9b::/96", "64:ff9b::8c52:7904", "allowed"},
		{"a configured nat64 prefix is judged as what it carries", "", "2606:4700:64::a00:7", "special-address"},
		{"and opened by it", "10.0.0.0/8", "2606:4700:64::a00:7", "allowed"},
		{"and public if that is", "", "2606:4700:64::8c52:7904", "allowed"},
		{"and metadata if that is", "10.0.0.0/8", "2606:4700:64::a9fe:a9fe", "special-address"},
	} {
		rule := hostRule(t, "registry.corp.example", 443)
		if c.resolvesTo != "" {
			rule.ResolvesTo = []netip.Prefix{netip.MustParsePrefix(c.resolvesTo)}
		}
		policy, err := allowlists.NewPolicy(allowlists.PolicySpec{
			Pools: []allowlists.PoolSpec{{Name: "build", Allow: []allowlists.Rule{rule}}},
			NAT64: []netip.Prefix{netip.MustParsePrefix("2606:4700:64::/96")},
		})
		if err != nil {
			t.Fatal(err)
		}
		pool, now := policy.Pool("build"), time.Now()
		by := pool.DecideConn(host(t, "registry.corp.example"), 443, now)
		if got := pool.DecideAddr(by, netip.MustParseAddr(c.addr), now); got.Reason.String() != c.want {
			t.Errorf("%s: %s", c.what, got.Reason)
		}
	}
}
