package dnsfilter

import "net/netip"

// foreign gives the resolver that a question was sent to before it was
// redirected here, if it is one that clients are not meant to ask.
func (s *Server) foreign(from *origin) netip.Addr {
	if s.cfg.IsForeign == nil {
		return netip.Addr{}
	}
	wanted := from.wanted
	if from.udp && s.cfg.Wanted != nil {
		wanted = s.cfg.Wanted(from.peer)
	}
	if wanted = wanted.Unmap().WithZone(""); !wanted.IsValid() || wanted == from.local.Addr() || !s.cfg.IsForeign(wanted) {
		return netip.Addr{}
	}
	return wanted
}
