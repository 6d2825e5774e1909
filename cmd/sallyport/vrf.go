package main

import (
	"net/netip"

	"sallyport/allowlists"
	"sallyport/allowlists/diag"
)

// A sourceClaim is one pool's claim to a source that other pools have too.
type sourceClaim struct {
	spec *allowlists.PoolSpec
	at   diag.Place
}

// checkVRFs looks for pools that the loader took as two only because their
// interfaces differ. This machine sends what it has for an address by one
// interface: without a routing table of its own (a VRF) for each, answers for a
// runner of the one pool go to that of the other which has the same address.
// vrf is vrfOf.
func checkVRFs(file *allowlists.File, report *diag.Report, vrf func(iface string) (string, bool)) {
	claims := make(map[netip.Prefix][]sourceClaim)
	for p := range file.Spec.Pools {
		spec := &file.Spec.Pools[p]
		for i, prefix := range spec.Sources {
			at := file.SourcePlace(spec.Name, i)
			for _, other := range claims[prefix] {
				if other.spec.Name != spec.Name {
					compareVRFs(prefix, other, sourceClaim{spec, at}, report, vrf)
				}
			}
			claims[prefix] = append(claims[prefix], sourceClaim{spec, at})
		}
	}
}

// compareVRFs reports the first two interfaces of two pools that the routing
// does not tell apart, or else those that are not here to be looked at.
func compareVRFs(prefix netip.Prefix, a, b sourceClaim, report *diag.Report, vrf func(string) (string, bool)) {
	absent := ""
	for _, ours := range b.spec.Interfaces {
		for _, theirs := range a.spec.Interfaces {
			mine, here := vrf(ours)
			other, there := vrf(theirs)
			switch {
			case !here:
				absent = ours
			case !there:
				absent = theirs
			case mine == other:
				report.Errorf(b.at, "source %s is one of pool %q too, and the interfaces %s and %s are not in different VRFs, so that answers for the one would go to the other; give each a VRF of its own, or the pools different sources", prefix, a.spec.Name, theirs, ours)
				return
			}
		}
	}
	if absent != "" {
		report.Warnf(b.at, "source %s is one of pool %q too, and whether their interfaces are in different VRFs cannot be seen here, as there is no interface %s; give each a VRF of its own", prefix, a.spec.Name, absent)
	}
}
