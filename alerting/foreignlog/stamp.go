package foreignlog

import (
	"bytes"
	"math"
	"strconv"
	"time"
)

// stamps reads the times that stand before a message, as the program, syslog
// or a container engine puts them there:
//
//	Nov 23 09:08:53 ...              syslog (RFC 3164), dnsmasq, Unbound
//	<30>1 2026-11-23T09:08:53Z ...   syslog (RFC 5424), with or without <30>1
//	2026-11-23T09:08:53.123Z stdout F ...   container engines (CRI; docker logs -t)
//	[1795424933] ...                 Unbound
type stamps struct{ *Options }

// cut takes the time off a line. Without one ok is false.
func (s stamps) cut(line []byte) (at time.Time, rest []byte, ok bool) {
	line = withoutPriority(line)
	switch {
	case len(line) < 12:
		return time.Time{}, nil, false
	case line[0] == '[':
		return cutEpoch(line)
	case '0' <= line[0] && line[0] <= '9' && line[4] == '-':
		return cutISO(line)
	default:
		return s.cutSyslog(line)
	}
}

// withoutPriority takes "<30>" and "<30>1 " off.
func withoutPriority(line []byte) []byte {
	if len(line) == 0 || line[0] != '<' {
		return line
	}
	end := bytes.IndexByte(line[:min(len(line), 6)], '>')
	if end < 2 {
		return line
	}
	return bytes.TrimPrefix(line[end+1:], []byte("1 "))
}

func cutEpoch(line []byte) (time.Time, []byte, bool) {
	end := bytes.IndexByte(line[:min(len(line), 32)], ']')
	if end < 0 {
		return time.Time{}, nil, false
	}
	at, ok := epoch(line[1:end])
	return at, bytes.TrimLeft(line[end+1:], " "), ok
}

// epoch reads seconds since 1970, with or without a fraction.
func epoch(text []byte) (time.Time, bool) {
	if len(text) == 0 || len(text) > 32 || text[0] == '-' {
		return time.Time{}, false
	}
	n, err := strconv.ParseFloat(string(text), 64)
	if err != nil || !(n > 0) || n > 1e11 {
		return time.Time{}, false
	}
	whole, fraction := math.Modf(n)
	return time.Unix(int64(whole), int64(math.Round(fraction*1e6))*1000).UTC(), true
}

func cutISO(line []byte) (time.Time, []byte, bool) {
	end := bytes.IndexByte(line[:min(len(line), 48)], ' ')
	if end < 0 {
		return time.Time{}, nil, false
	}
	at, ok := iso(line[:end])
	rest := line[end+1:]
	for _, stream := range []string{"stdout F ", "stderr F ", "stdout P ", "stderr P "} {
		rest = bytes.TrimPrefix(rest, []byte(stream))
	}
	return at, rest, ok
}

// iso reads a time of RFC 3339.
func iso(text []byte) (time.Time, bool) {
	at, err := time.Parse(time.RFC3339Nano, string(text))
	return at.UTC(), err == nil && at.Year() > 1970 && at.Year() < 9999
}

// cutSyslog reads "Nov 23 09:08:53 ", whose year is the last in which that was
// not in the future.
func (s stamps) cutSyslog(line []byte) (time.Time, []byte, bool) {
	const shape = "Jan _2 15:04:05"
	if len(line) <= len(shape) || line[len(shape)] != ' ' || line[3] != ' ' || line[9] != ':' {
		return time.Time{}, nil, false
	}
	zone, latest := s.Zone, s.Latest
	if zone == nil {
		zone = time.UTC
	}
	if latest.IsZero() {
		latest = time.Now()
	}
	// With a leap year, so that 29 February is a day.
	at, err := time.ParseInLocation("2006 "+shape, "2000 "+string(line[:len(shape)]), zone)
	if err != nil {
		return time.Time{}, nil, false
	}
	for year := latest.In(zone).Year() + 1; ; year-- {
		dated := time.Date(year, at.Month(), at.Day(), at.Hour(), at.Minute(), at.Second(), 0, zone)
		if dated.Day() == at.Day() && dated.Before(latest.Add(24*time.Hour)) {
			return dated.UTC(), line[len(shape)+1:], true
		}
	}
}

// after finds what a program said behind its name, as in "host dnsmasq[7]: said";
// the name is looked for in the first bytes only, before anything from a client.
func after(rest []byte, program string) ([]byte, bool) {
	head := rest[:min(len(rest), 320)]
	for from := 0; ; {
		i := bytes.Index(head[from:], []byte(program))
		if i < 0 {
			return nil, false
		}
		from += i + len(program)
		end := from
		if end < len(rest) && rest[end] == '[' {
			if n := bytes.IndexByte(rest[end:min(len(rest), end+24)], ']'); n > 0 {
				end += n + 1
			}
		}
		if said, ok := bytes.CutPrefix(rest[end:], []byte(": ")); ok {
			return said, true
		}
		if said, ok := bytes.CutPrefix(rest[end:], []byte(" ")); ok && end > from { // Unbound: "unbound[7:0] info: "
			return said, true
		}
	}
}
