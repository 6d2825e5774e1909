package allowlists

import "net/netip"

// A Subject is who asks: an address in a pool, and the job there if it is known.
type Subject struct {
	Client netip.Addr // unmapped, without zone
	Iface  string     // the interface it came in by, on a gateway; else ""
	Pool   string     // "" if no pool admits the client
	Job    *Job       // nil if unknown
}

// Key is the address that limits, the book and the correlator count by: every
// loopback address is one client, as any process there can take any of them.
func (s Subject) Key() netip.Addr {
	if s.Client.IsLoopback() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return s.Client
}

// A Job is the CI job behind a client, where something vouches for it.
type Job struct {
	Repo     string `json:"repo,omitempty"`
	Workflow string `json:"workflow,omitempty"`
	RunID    string `json:"run_id,omitempty"`
	Job      string `json:"job,omitempty"`
	Ref      string `json:"ref,omitempty"`
}
