package dnsfilter

import "time"

// maxRefusing is how many batches of quick refusals of one socket may wait for
// their lines in the log. Where a write takes so long that this is not enough,
// refusals go the way of all other questions, each waiting by itself.
const maxRefusing = 8

// refusing are refusals that came together: their records wait for the log
// once, and then they are sent. Whoever reads packets waits for none of that.
type refusing struct {
	records []QueryRecord
	made    []*ready
	outbox  outbox
}

// add takes a refusal with a copy of its record.
func (f *refusing) add(reply []byte, p *packet, made *ready, record *QueryRecord) {
	f.outbox.add(append(f.outbox.room(), reply...), &p.client, p.reply)
	f.records, f.made = append(f.records, *record), append(f.made, made)
}

// clear makes room.
func (f *refusing) clear() {
	clear(f.records)
	clear(f.made)
	f.records, f.made = f.records[:0], f.made[:0]
}

// sendRefusals records and sends what comes in refused until that is closed.
func (s *Server) sendRefusals(b *bound) {
	io, err := newDatagramIO(b.udp)
	if err != nil {
		return // the socket is closed
	}
	for f := range b.refused {
		if !s.observeRefused(f) {
			for i, made := range f.made {
				f.outbox.packets[i].bytes = failure(f.outbox.packets[i].bytes, made)
			}
		}
		f.outbox.send(io)
		f.clear()
		b.spare <- f
	}
}

// observeRefused is observe for all of a batch.
func (s *Server) observeRefused(f *refusing) (ok bool) {
	defer func() {
		if p := recover(); p != nil {
			s.panicked(p)
		}
	}()
	now := time.Now()
	for i := range f.records {
		r := &f.records[i]
		r.Took = now.Sub(r.Time)
		f.made[i].queries.Inc()
		f.made[i].seconds.Observe(r.Took.Seconds())
	}
	s.cfg.ObserveRefused(f.records)
	return true
}
