package alerting

import "time"

// newDetectors makes one detector for each alert, or for each few that exclude
// each other, with the numbers of alerts.thresholds. Their order is that in
// which findings of one event are counted.
func (c *correlator) newDetectors() []detector {
	config := &c.config
	return []detector{
		&deniedEgress{},
		&direct{window: c.window, names: c.refused},
		&metadataAccess{c.window, c.refused},
		newScan(config),
		rebinding{},
		sniMismatch{},
		&addressMismatch{hold: config.duration("address_mismatch_hold", 10*time.Minute)},
		newDNSTunnel(c),
		foreignResolver{},
		newLookalike(config),
		newResolvedUnused(config),
		policyTrouble{},
		&firstSeen{c.baseline, &c.suspects},
		newUploadVolume(config, c.baseline, &c.suspects),
	}
}
