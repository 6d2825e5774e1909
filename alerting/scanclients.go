package alerting

import (
	"cmp"
	"slices"
	"time"
)

// scanRoom bounds scanClients: clients and probes together. A probe takes about
// 100 bytes and a client 200, so it is some 10 MB at the most.
const scanRoom = 65536

// scanClients remembers the latest probes of each client: at most most of one,
// to different destinations, none older than window, and at most room of all
// together. It belongs to the detector scan.
//
// When it is full the pools give way down to an even share, so that none pushes
// out another. Within a pool clients go first that have tried the fewest
// destinations, and those last whose scan is on: to be forgotten, a client needs
// a crowd of others that have come closer to a scan than itself.
type scanClients struct {
	most    int
	window  time.Duration
	room    int
	used    int // clients and probes
	clients map[clientOf]*scanClient
}

// A scanClient is what is known of one client.
type scanClient struct {
	probes []probe   // to different destinations, the latest last
	until  time.Time // the scan is on until then; zero: there was none
}

func newScanClients(most int, window time.Duration) *scanClients {
	return &scanClients{most: most, window: window, room: scanRoom, clients: make(map[clientOf]*scanClient)}
}

// add puts a probe into the window of its client, which it returns, and reports
// whether the window did not have the destination.
func (s *scanClients) add(of clientOf, p probe) (c *scanClient, fresh bool) {
	if c = s.clients[of]; c == nil {
		if s.used+2 > s.room {
			s.makeRoom(p.time)
		}
		c = &scanClient{}
		s.clients[of] = c
		s.used++
	}
	before := len(c.probes)
	fresh = true
	c.probes = slices.DeleteFunc(c.probes, func(old probe) bool {
		same := old.to == p.to && old.via == p.via
		fresh = fresh && !same
		return same || p.time.Sub(old.time) > s.window
	})
	if len(c.probes) == s.most {
		c.probes = slices.Delete(c.probes, 0, 1)
	}
	c.probes = append(c.probes, p)
	s.used += len(c.probes) - before
	if s.used > s.room {
		s.makeRoom(p.time)
	}
	return c, fresh
}

// expire forgets clients whose window is empty and whose scan is over.
func (s *scanClients) expire(now time.Time) {
	for of, c := range s.clients {
		if now.Sub(c.probes[len(c.probes)-1].time) > s.window && !now.Before(c.until) {
			s.forget(of)
		}
	}
}

func (s *scanClients) forget(of clientOf) {
	s.used -= 1 + len(s.clients[of].probes)
	delete(s.clients, of)
}

// makeRoom forgets what is old, and if need be so much more that an eighth of
// the room is free: it is called rarely, whoever floods us.
func (s *scanClients) makeRoom(now time.Time) {
	s.expire(now)
	target := s.room - s.room/8
	if s.used <= target {
		return
	}
	type known struct {
		of clientOf
		c  *scanClient
	}
	pools := make(map[string][]known)
	sizes := make(map[string]int)
	for of, c := range s.clients {
		pools[of.pool] = append(pools[of.pool], known{of, c})
		sizes[of.pool] += 1 + len(c.probes)
	}
	share := evenShare(sizes, target)
	for pool, clients := range pools {
		slices.SortFunc(clients, func(a, b known) int { return worth(a.c, b.c, now) })
		for _, victim := range clients {
			if sizes[pool] <= share {
				break
			}
			sizes[pool] -= 1 + len(victim.c.probes)
			s.forget(victim.of)
		}
	}
}

// worth orders clients by how much would be lost with them.
func worth(a, b *scanClient, now time.Time) int {
	on := func(c *scanClient) int {
		if now.Before(c.until) {
			return 1
		}
		return 0
	}
	last := func(c *scanClient) time.Time { return c.probes[len(c.probes)-1].time }
	return cmp.Or(on(a)-on(b), len(a.probes)-len(b.probes), last(a).Compare(last(b)))
}

// evenShare is the most that each may keep so that all keep total together,
// where those that have less than their share leave the rest to the others.
func evenShare(sizes map[string]int, total int) int {
	ordered := make([]int, 0, len(sizes))
	for _, size := range sizes {
		ordered = append(ordered, size)
	}
	slices.Sort(ordered)
	for i, size := range ordered {
		share := total / (len(ordered) - i)
		if size > share {
			return share
		}
		total -= size
	}
	return total
}
