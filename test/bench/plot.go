//go:build linux

package main

import (
	"bytes"
	"fmt"
	"html"
	"slices"
)

// A panel of the plot is bars, one a subject.
type panel struct {
	figure  string
	measure measureName
	title   string
}

// panels are the figures that the plot shows: what most of them cost.
var panels = []panel{
	{"setup", rate, "tunnels set up a second, 32 at once"},
	{"setup", cpu, "CPU of 1,000 tunnels, ms"},
	{"refused", cpu, "CPU of 1,000 refused CONNECTs, ms"},
	{"http", cpu, "CPU of 1,000 plain GETs, ms"},
	{"bulk1-down", cpu, "CPU of a GB, 1 stream, ms"},
	{"idle", each, "memory of an idle tunnel, KiB"},
	{"cached", cpu, "CPU of 1,000 cached answers, ms"},
	{"refused-dns", cpu, "CPU of 1,000 refused questions, ms"},
	{"uncached", cpu, "CPU of 1,000 questions asked upstream, ms"},
	{"ready", readyAfter, "from start to the first service, ms"},
}

// Measures of the plot, in pixels.
const (
	panelWide = 440
	barHigh   = 18
	labelWide = 110
	numberGap = 60
	titleHigh = 28
)

// plot draws the medians as bars, with a line from the least to the most.
func plot(what about, samples []Sample) []byte {
	var body bytes.Buffer
	left, right := 46, 46 // where the next panel of each column begins
	for _, p := range panels {
		subjects := measured(samples, p)
		if len(subjects) == 0 {
			continue
		}
		high := titleHigh + barHigh*len(subjects) + 20
		if left <= right {
			p.draw(&body, 10, left, subjects, samples)
			left += high
		} else {
			p.draw(&body, 20+panelWide, right, subjects, samples)
			right += high
		}
	}
	var out bytes.Buffer
	wide, high := 2*panelWide+30, max(left, right)
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", wide, high)
	fmt.Fprintf(&out, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", wide, high)
	fmt.Fprintf(&out, `<text x="10" y="24" font-size="15" fill="#222222">Medians of %d rounds, least to most as a line; %s</text>`+"\n", what.Rounds, html.EscapeString(what.Date))
	out.Write(body.Bytes())
	out.WriteString("</svg>\n")
	return out.Bytes()
}

// measured are the subjects that a panel has a value of, in their order.
func measured(samples []Sample, p panel) []string {
	var subjects []string
	for _, s := range samples {
		if _, ok := s.Values[p.measure]; ok && s.Figure == p.figure && !slices.Contains(subjects, s.Subject) {
			subjects = append(subjects, s.Subject)
		}
	}
	return subjects
}

// draw writes the panel with its upper left corner at x, y.
func (p panel) draw(out *bytes.Buffer, x, y int, subjects []string, samples []Sample) {
	most := 0.0
	for _, subject := range subjects {
		s, _ := median(samples, p.figure, subject, p.measure)
		most = max(most, s.most)
	}
	if most == 0 {
		return
	}
	scale := float64(panelWide-labelWide-numberGap) / most
	fmt.Fprintf(out, `<text x="%d" y="%d" font-weight="bold" fill="#222222">%s</text>`+"\n", x, y+14, html.EscapeString(p.title))
	for i, subject := range subjects {
		s, _ := median(samples, p.figure, subject, p.measure)
		top, colour := y+titleHigh-4+i*barHigh, "#9aa5b1"
		if len(subject) >= 9 && subject[:9] == "sallyport" {
			colour = "#2b6cb0"
		}
		middle, bar := top+barHigh/2-2, x+labelWide
		fmt.Fprintf(out, `<text x="%d" y="%d" text-anchor="end" fill="#222222">%s</text>`, bar-6, top+12, html.EscapeString(subject))
		fmt.Fprintf(out, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, bar, top, s.median*scale, barHigh-4, colour)
		fmt.Fprintf(out, `<path d="M%.1f %dH%.1f" stroke="#222222"/>`, float64(bar)+s.least*scale, middle, float64(bar)+s.most*scale)
		fmt.Fprintf(out, `<text x="%.1f" y="%d" fill="#222222">%s</text>`+"\n", float64(bar)+s.most*scale+5, top+12, number(s.median))
	}
}
