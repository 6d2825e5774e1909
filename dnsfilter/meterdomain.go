package dnsfilter

import (
	"math"
	"math/bits"
	"time"
)

// The counters' times and bounds.
const (
	meterSlots  = 11 // of the window, each a tenth of it: never less than the window is covered
	meterHours  = 25 // of the day, likewise
	meterIDs    = 9  // ids kept as evidence, of the first questions
	meterShared = 4  // times the limits, for all that lies under a suffix whose domains anyone can own
	// meterTrickle is how many questions for known names of a domain leave in a
	// minute once its bytes are used up, so that what worked goes on working.
	// Each carries 18 bits at most, all of them 26 kB in a day.
	meterTrickle = 8
	// nameUnit is the weight of a name; one of humanShape weighs a quarter.
	nameUnit = 4
)

// meterDomain is one domain as one client asks for it. It is guarded by its
// shard's lock.
type meterDomain struct {
	name   string
	by     account // that its names count against
	limits MeterLimits
	known  map[uint64]int32 // names asked for within a day, and the hour of the last time
	slot   int64            // the current one, in tenths of a window since 1970
	hour   int64            // the current one, since 1970
	slots  [meterSlots]meterSlot
	hours  [meterHours]uint32 // bits

	minute  int64 // of trickle
	trickle int

	questions, carriers, missing uint32 // features, of the day so far
	answered                     uint64 // bytes
	letters                      [38]uint32
	labels, labelBytes           uint32
	left                         uint32 // names that left the machine
	leftBits                     uint64
	ids                          []string

	isNew, crossed bool // of the last question
}

// meterSlot is what was counted in a tenth of a window.
type meterSlot struct{ weight, names, bits uint32 }

func newMeterDomain(name string, by account) *meterDomain {
	return &meterDomain{name: name, by: by, known: make(map[uint64]int32)}
}

// turn moves the windows on to now. A clock that went back counts as standing.
func (d *meterDomain) turn(now time.Time) {
	tenth := int64(max(d.limits.Window/(meterSlots-1), 1))
	slot, hour := now.UnixNano()/tenth, now.Unix()/3600
	for n := min(slot-d.slot, meterSlots); n > 0; n-- {
		d.slots[(slot-n+1)%meterSlots] = meterSlot{}
	}
	for n := min(hour-d.hour, meterHours); n > 0; n-- {
		d.hours[(hour-n+1)%meterHours] = 0
	}
	if hour-d.hour >= meterHours {
		d.questions, d.carriers, d.missing, d.answered, d.ids = 0, 0, 0, 0, nil
		d.letters, d.labels, d.labelBytes, d.left, d.leftBits = [38]uint32{}, 0, 0, 0, 0
	}
	d.slot, d.hour = max(d.slot, slot), max(d.hour, hour)
}

// over names the limit that is reached, or that further bits would exceed; "" if
// none is. bytes says that it is one of bytes.
func (d *meterDomain) over(further uint32) (limit string, bytes bool) {
	var weight uint64
	windowBits, dayBits := uint64(further), uint64(further)
	within := func(n uint64, bytes int64) bool { return n < 8*uint64(bytes) || further > 0 && n == 8*uint64(bytes) }
	for i := range d.slots {
		weight += uint64(d.slots[i].weight)
		windowBits += uint64(d.slots[i].bits)
	}
	for _, n := range d.hours {
		dayBits += uint64(n)
	}
	switch {
	case !within(dayBits, d.limits.DayBytes):
		return LimitTunnelDayBytes, true
	case !within(windowBits, d.limits.Bytes):
		return LimitTunnelBytes, true
	case weight >= nameUnit*uint64(d.limits.Names):
		return LimitTunnelNames, false
	default:
		return "", false
	}
}

// admits reports whether one more question may leave, and how things stand if
// it may not.
func (d *meterDomain) admits(q *Carried, hash uint64, known bool, now time.Time) (Tally, bool) {
	_, seen := d.known[hash]
	limit, bytes := d.over(d.cost(q, seen, known))
	if limit == "" {
		return Tally{}, true
	}
	refused := d.tally(false)
	if refused.Over = limit; !seen && !known {
		return refused, false
	}
	if !bytes {
		return Tally{}, true
	}
	if minute := now.Unix() / 60; minute > d.minute {
		d.minute, d.trickle = minute, 0
	}
	if d.trickle++; d.trickle > meterTrickle {
		return refused, false
	}
	return Tally{}, true
}

// count adds one question.
func (d *meterDomain) count(q *Carried, hash uint64, names *shares, known bool) {
	before, _ := d.over(0)
	_, seen := d.known[hash]
	slot := &d.slots[d.slot%meterSlots]
	n := d.cost(q, seen, known)
	if seen && !q.Repeats {
		n = 0
	}
	slot.bits += n
	d.hours[d.hour%meterHours] += n
	if !seen && !known {
		slot.names++
		slot.weight += weightOf(q, d.name)
	}
	if seen || len(d.known) < meterDomainNames && names.enter(d.by) {
		d.known[hash] = int32(d.hour)
	}
	d.observe(q, seen)
	if q.Leaks {
		d.leftBits += uint64(n)
		if !seen {
			d.left++
		}
	}
	limit, _ := d.over(0)
	d.isNew, d.crossed = !seen && !known, before == "" && limit != ""
}

// plantedBits is what a name out of a baseline counts: as much as choosing one
// of all destinations that a baseline holds, 20,000, as jobs may have put them
// there.
const plantedBits = 15

// cost is the length of a question in a code that tells it from every other, in
// bits: for a name asked for before, which one of them it is; for one that is
// known from elsewhere, which of those; else its labels as they are on the
// wire. To each, the type.
func (d *meterDomain) cost(q *Carried, seen, known bool) uint32 {
	which := uint32(bits.Len(uint(len(d.known))))
	switch {
	case seen || q.Listed:
		return which + typeBits(q)
	case known:
		return plantedBits + typeBits(q)
	default:
		return 8 * uint32(max(1, len(prefixOf(q.Name, d.name))))
	}
}

// typeBits is the code of a type and its flags: 2^-2 for A and AAAA each, 2^-3
// for HTTPS, 2^-12 for each of 1,024 others; together less than 1.
func typeBits(q *Carried) uint32 {
	switch {
	case q.Flags:
		return 12
	case q.Type == 1 || q.Type == 28:
		return 2
	case q.Type == 65:
		return 3
	default:
		return 12
	}
}

// observe keeps the features of a question.
func (d *meterDomain) observe(q *Carried, seen bool) {
	d.questions++
	if q.carrier() {
		d.carriers++
	}
	if q.Missing {
		d.missing++
	}
	d.answered += uint64(max(0, q.Answered))
	if len(d.ids) < meterIDs && q.ID != "" && !seen {
		d.ids = append(d.ids, q.ID)
	}
	if seen {
		return
	}
	for _, c := range []byte(prefixOf(q.Name, d.name)) {
		switch {
		case c == '.':
			d.labels++
			continue
		case 'a' <= c && c <= 'z':
			d.letters[c-'a']++
		case '0' <= c && c <= '9':
			d.letters[26+c-'0']++
		case c == '-':
			d.letters[36]++
		default:
			d.letters[37]++
		}
		d.labelBytes++
	}
}

// forget drops the names of more than a day ago, and reports whether nothing
// is left.
func (d *meterDomain) forget(names *shares, now time.Time) bool {
	hour := now.Unix() / 3600
	for hash, last := range d.known {
		if hour-int64(last) >= meterHours {
			delete(d.known, hash)
			names.leave(d.by)
		}
	}
	return len(d.known) == 0 && hour-d.hour >= meterHours
}

// A Tally is how things stand with one domain and client.
type Tally struct {
	Domain   string // registrable, or the one above whose parts anyone can own; "": not counted
	Over     string // the key of the limit that is reached; "" if none is
	Crossed  bool   // the question that was counted reached it
	New      bool   // its name was new
	Names    int    // that were new within the window
	Bytes    int64  // carried within the window
	DayBytes int64  // carried within 24 hours

	// Features, of 24 hours or longer.
	Questions int     // that counted
	Carriers  int     // of them for TXT, NULL, CNAME and MX
	Missing   int     // of them for names that do not exist
	Answered  int64   // bytes of answers that are no addresses
	Left      int     // names that left the machine, or may have
	LeftBytes int64   // that they and their repeats carried
	Label     float64 // mean length of a label, in bytes
	Entropy   float64 // of the labels' letters, in bits a letter

	IDs []string // of the first questions for new names, at most 9; not shared
}

// tally is the Tally of now, in full if a limit is reached or all is true.
func (d *meterDomain) tally(all bool) Tally {
	limit, _ := d.over(0)
	t := Tally{
		Domain: d.name, Over: limit, Crossed: d.crossed, New: d.isNew, Questions: int(d.questions), Carriers: int(d.carriers),
		Missing: int(d.missing), Answered: int64(d.answered), Left: int(d.left), LeftBytes: int64(d.leftBits+7) / 8,
	}
	var windowBits, dayBits int64
	for i := range d.slots {
		t.Names += int(d.slots[i].names)
		windowBits += int64(d.slots[i].bits)
	}
	for _, n := range d.hours {
		dayBits += int64(n)
	}
	t.Bytes, t.DayBytes = (windowBits+7)/8, (dayBits+7)/8
	if limit == "" && !all {
		return t
	}
	t.IDs = append(t.IDs, d.ids...)
	if d.labels > 0 {
		t.Label = float64(d.labelBytes) / float64(d.labels)
	}
	t.Entropy = d.entropy()
	return t
}

// entropy is the Shannon entropy of the letters, in bits a letter.
func (d *meterDomain) entropy() (sum float64) {
	for _, n := range d.letters {
		if n > 0 {
			p := float64(n) / float64(d.labelBytes)
			sum -= p * math.Log2(p)
		}
	}
	return sum
}
