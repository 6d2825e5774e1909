package allowlists

import "net/netip"

// A Subject is who asks: an address in a pool, and the job there if it is known.
type Subject struct {
	Client netip.Addr // unmapped, without zone
	Iface  string     // the interface it came in by, on a gateway; else ""
	Pool   string     // "" if no pool admits the client
	Job    *Job       // nil if unknown
	// Machine is one address for all that the client's machine has on Iface; zero
	// if Client is all that is known of it. No verdict depends on it.
	Machine netip.Addr
}

// Key is the address that limits, the book and the correlator count by: that of
// the machine, so that taking further addresses gains a client nothing. Every
// loopback address is one client, as any process there can take any of them.
func (s Subject) Key() netip.Addr {
	switch {
	case s.Client.IsLoopback():
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case s.Machine.IsValid():
		return s.Machine
	default:
		return s.Client
	}
}

// A Job is the CI job behind a client, where something vouches for it.
type Job struct {
	Repo     string `json:"repo,omitempty"`
	Workflow string `json:"workflow,omitempty"`
	RunID    string `json:"run_id,omitempty"`
	Job      string `json:"job,omitempty"`
	Ref      string `json:"ref,omitempty"`
}
