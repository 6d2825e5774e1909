package report

import (
	"cmp"
	_ "embed" // the page
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
	"time"
)

// The bounds of a report in HTML.
const (
	htmlRows  = 500 // of a table
	htmlPools = 50  // whose unused rules are shown
	htmlBars  = 15  // destinations in the picture of bytes
)

//go:embed page.html
var pageText string

// page needs nothing but itself: no script, no request. Its values are escaped
// by html/template, for the place where they stand.
var page = template.Must(template.New("page").Funcs(template.FuncMap{"clean": clean}).Parse(pageText))

// A htmlPage is what the page shows.
type htmlPage struct {
	view
	Facts  []fact
	Time   *timePicture // nil without events
	Bytes  []byteBar
	BarsOf string // how many of the destinations have bars
}

// A timePicture is the time line, in units of its own: each slot is 10 wide, the
// whole is 100 high.
type timePicture struct {
	Width       int
	Bars        []timeBar
	First, Last string
	Most        int    // in one slot
	Each        string // how long a slot is
	Says        string
	Audit       bool // there is any
	Alerts      bool
}

// A timeBar is a part of one slot.
type timeBar struct {
	X, Y, Height float64
	Class, Says  string
}

// A byteBar is one destination with its bytes; widths are of 100.
type byteBar struct {
	Name, Sent, Received string
	SentWidth            float64
	ReceivedWidth        float64
}

// WriteHTML writes the report as one file that needs nothing else.
func (r *Report) WriteHTML(w io.Writer) error {
	v := layout{r, htmlRows, htmlPools}.view()
	p := htmlPage{view: v, Facts: append(v.About, v.Totals...), Time: r.timePicture()}
	p.Bytes, p.BarsOf = r.byteBars()
	return page.Execute(w, &p)
}

// timePicture draws the time line.
func (r *Report) timePicture() *timePicture {
	if len(r.Timeline) == 0 {
		return nil
	}
	each := time.Duration(r.SlotSeconds) * time.Second
	begin, end := r.Timeline[0].Start, r.Timeline[len(r.Timeline)-1].Start
	p := &timePicture{Width: 10 * (int(end.Sub(begin)/each) + 1), First: stamp(begin), Last: stamp(end.Add(each)), Each: eachText(r.SlotSeconds)}
	for i := range r.Timeline {
		p.Most = max(p.Most, r.Timeline[i].Allowed+r.Timeline[i].Audit+r.Timeline[i].Refused)
	}
	var sum Slot
	for i := range r.Timeline {
		s := &r.Timeline[i]
		sum.merge(*s)
		x, at := float64(10*int(s.Start.Sub(begin)/each)), clock(s.Start)
		top := 100.0
		bar := func(n int, class, what string) {
			if n == 0 {
				return
			}
			height := max(2, 86*float64(n)/float64(max(1, p.Most)))
			top -= height
			p.Bars = append(p.Bars, timeBar{x, top, height, class, fmt.Sprintf("%s: %d %s", at, n, what)})
		}
		bar(s.Allowed, "allowed", "allowed")
		bar(s.Audit, "audit", "only in audit")
		bar(s.Refused, "refused", "refused")
		if s.Alerts > 0 {
			p.Bars = append(p.Bars, timeBar{x, 0, 8, "alert", at + ": " + count(s.Alerts, "alert")})
		}
	}
	p.Audit, p.Alerts = sum.Audit > 0, sum.Alerts > 0
	p.Says = fmt.Sprintf("From %s to %s, %s a bar: %d allowed, %d only in audit, %d refused, %s; at most %d in one bar.",
		p.First, p.Last, p.Each, sum.Allowed, sum.Audit, sum.Refused, count(sum.Alerts, "alert"), p.Most)
	return p
}

// eachText is a number of seconds as people say it.
func eachText(seconds int) string {
	for _, unit := range []struct {
		seconds int
		name    string
	}{{86400, "day"}, {3600, "hour"}, {60, "minute"}} {
		if seconds%unit.seconds == 0 {
			return count(seconds/unit.seconds, unit.name)
		}
	}
	return count(seconds, "second")
}

// byteBars draws the destinations with the most bytes.
func (r *Report) byteBars() ([]byteBar, string) {
	list := slices.DeleteFunc(slices.Clone(r.Destinations), func(d Destination) bool { return d.Sent+d.Received == 0 })
	slices.SortStableFunc(list, func(a, b Destination) int { return cmp.Compare(b.Sent+b.Received, a.Sent+a.Received) })
	shown := list[:min(len(list), htmlBars)]
	most := int64(1)
	for i := range shown {
		most = max(most, shown[i].Sent, shown[i].Received)
	}
	width := func(n int64) float64 {
		if n == 0 {
			return 0
		}
		return max(0.5, 100*float64(n)/float64(most))
	}
	var bars []byteBar
	for i := range shown {
		d := &shown[i]
		name := target(d.Host, d.IP, d.Port, d.Via, "")
		if len(r.Scope.Pools) > 1 {
			name = strings.TrimSpace(d.Pool + " " + name)
		}
		bars = append(bars, byteBar{name, bytesText(d.Sent), bytesText(d.Received), width(d.Sent), width(d.Received)})
	}
	if len(list) > len(shown) {
		return bars, fmt.Sprintf("The %d of %d destinations with the most bytes.", len(shown), len(list))
	}
	return bars, ""
}
