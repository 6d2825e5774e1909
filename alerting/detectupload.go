package alerting

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"sallyport/allowlists"
	"sallyport/proxy"
)

// The bounds of uploadVolume.
const (
	uploadTunnels = 65_536    // open tunnels whose last count is remembered
	uploadHours   = 65_536    // sums of clients and destinations; the smallest go first
	uploadWindow  = time.Hour // that a sum covers, from its first byte
)

// uploadVolume raises upload-volume: a connection passed its upload_limit, or a
// client sent a destination more within an hour than the pool's usual allows,
// upload_factor times as much. One group per pool and host.
//
// The usual is the baseline's, and so is learning: until a pool has learnt, and
// without a baseline, size alone raises nothing. State: what each open tunnel
// had sent when it was told of last, and a sum for each client and destination.
// What is forgotten of a tunnel counts again, so that forgetting hides nothing.
type uploadVolume struct {
	factor, floor int64
	baseline      *baseline // nil: only upload_limit counts
	suspects      *suspects
	tunnels       map[string]toldBytes // by id
	hours         map[uploadOf]*uploadHour
}

// toldBytes is what the last line of a tunnel said, and when that was.
type toldBytes struct {
	sent int64
	time time.Time
}

// An uploadOf is whose bytes a sum counts, and where they went.
type uploadOf struct {
	client      clientOf
	destination string
}

// An uploadHour is what was sent within an hour since it began.
type uploadHour struct {
	began time.Time
	sent  int64
	told  bool // it was more than usual, and a finding says so
}

func newUploadVolume(config *correlatorConfig, b *baseline, s *suspects) *uploadVolume {
	return &uploadVolume{
		factor: config.uploadFactor(), floor: config.uploadFloor(), baseline: b, suspects: s,
		tunnels: make(map[string]toldBytes), hours: make(map[uploadOf]*uploadHour),
	}
}

// uploadFactor is alerts.thresholds.upload_factor.
func (c *correlatorConfig) uploadFactor() int64 { return int64(max(1, c.number("upload_factor", 10))) }

// uploadFloor is alerts.thresholds.upload_floor, in bytes.
func (c *correlatorConfig) uploadFloor() int64 { return int64(c.number("upload_floor", 10_000_000)) }

// trivialUpload is the usual upload of which upload_factor times as much is
// still below the floor, in bytes.
func (c *correlatorConfig) trivialUpload() int64 { return c.uploadFloor() / c.uploadFactor() }

func (d *uploadVolume) observe(e *Event, now time.Time) []finding {
	if e.Kind != KindConn || e.Phase != PhaseProgress && e.Phase != PhaseClose {
		return nil
	}
	more := d.since(e)
	if e.Cause() == allowlists.UploadLimit {
		f := d.found(e)
		f.summary = fmt.Sprintf("%s sent %s to %s, past the upload_limit of the rule, in %s", f.asker, SizeText(e.Sent), f.subject, poolName(f.pool))
		return []finding{f}
	}
	if d.baseline == nil || more <= 0 {
		return nil
	}
	to := destination(hostOf(e), e.IP, e.Port)
	h := d.hour(uploadOf{ofClient(e), to}, now)
	h.sent += more
	usual, learnt := d.baseline.usual(e, to, now)
	if !learnt || h.sent <= d.floor || h.sent/d.factor <= usual {
		if carried(e) && !d.suspects.has(ofClient(e)) {
			d.baseline.taught(e, to, h.sent, now)
		}
		return nil
	}
	if h.told {
		return nil
	}
	h.told = true
	f := d.found(e)
	f.summary = fmt.Sprintf("%s sent %s to %s within an hour; usual in %s is %s", f.asker, SizeText(h.sent), to, poolName(f.pool), SizeText(usual))
	return []finding{f}
}

func (d *uploadVolume) found(e *Event) finding {
	f := found(e, AlertUploadVolume, High)
	if f.subject = f.host; f.subject == "" && f.ip.IsValid() {
		f.subject = f.ip.String()
	}
	return f
}

// since is how many bytes the line tells of that no line told of before.
func (d *uploadVolume) since(e *Event) int64 {
	more := e.Sent - d.tunnels[e.ID].sent
	switch {
	case e.Phase == PhaseClose:
		delete(d.tunnels, e.ID)
	case e.Via != proxy.ViaHTTP && len(d.tunnels) < uploadTunnels || d.tunnels[e.ID].sent > 0:
		d.tunnels[e.ID] = toldBytes{e.Sent, e.Time}
	}
	return more
}

// hour is the sum that is being counted, begun anew where the last one is over.
func (d *uploadVolume) hour(of uploadOf, now time.Time) *uploadHour {
	h := d.hours[of]
	if h != nil && now.Sub(h.began) < uploadWindow {
		return h
	}
	if h == nil && len(d.hours) >= uploadHours {
		d.makeRoom(now)
	}
	h = &uploadHour{began: now}
	d.hours[of] = h
	return h
}

// makeRoom forgets the sums that are over, and if those are few the smaller
// half: whoever wants a large one forgotten has to send more to many others.
func (d *uploadVolume) makeRoom(now time.Time) {
	d.forgetHours(now)
	if len(d.hours) < uploadHours/2 {
		return
	}
	all := slices.SortedFunc(maps.Keys(d.hours), func(a, b uploadOf) int { return cmp.Compare(d.hours[a].sent, d.hours[b].sent) })
	for _, of := range all[:len(all)/2] {
		delete(d.hours, of)
	}
}

func (d *uploadVolume) forgetHours(now time.Time) {
	maps.DeleteFunc(d.hours, func(_ uploadOf, h *uploadHour) bool { return now.Sub(h.began) >= uploadWindow })
}

// expire forgets sums that are over, and tunnels that nothing was heard of for
// a day: their close was lost.
func (d *uploadVolume) expire(now time.Time) {
	d.forgetHours(now)
	maps.DeleteFunc(d.tunnels, func(_ string, told toldBytes) bool { return now.Sub(told.time) > 24*time.Hour })
}

// SizeText is a number of bytes as people read it: "52.3 MB".
func SizeText(n int64) string {
	for _, unit := range []struct {
		bytes float64
		name  string
	}{{1e9, "GB"}, {1e6, "MB"}, {1e3, "kB"}} {
		if float64(n) >= unit.bytes {
			return fmt.Sprintf("%.1f %s", float64(n)/unit.bytes, unit.name)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}
