package allowlists_test

import (
	"net/netip"
	"testing"

	"sallyport/allowlists"
)

func TestWhoASubjectCountsAs(t *testing.T) {
	tests := []struct{ rule, client, machine, want string }{
		{"a client counts as itself", "10.0.0.9", "", "10.0.0.9"},
		{"one of a machine counts as the machine", "fd00::9", "10.0.0.2", "10.0.0.2"},
		{"loopback is one client", "127.3.2.1", "", "127.0.0.1"},
		{"loopback of IPv6 is the same", "::1", "10.0.0.2", "127.0.0.1"},
	}
	for _, tt := range tests {
		sub := allowlists.Subject{Client: netip.MustParseAddr(tt.client)}
		if tt.machine != "" {
			sub.Machine = netip.MustParseAddr(tt.machine)
		}
		if got := sub.Key(); got.String() != tt.want {
			t.Errorf("%s: got %s", tt.rule, got)
		}
	}
}
