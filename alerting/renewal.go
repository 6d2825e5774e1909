package alerting

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// endingsMost bounds the ends that wait for a sink. Further ones come to the
// receiver by the time that was given with the alert.
const endingsMost = 4096

// renewAt is when a sink whose receiver forgets is told of a group again,
// though there is nothing new; the zero Time if it is not.
func (g *group) renewAt(sink *sinkWants) time.Time {
	if s := g.Shares[sink.name]; sink.renews && g.Closed == "" && sink.wants(g) && s != nil && s.Messages > 0 {
		return s.At.Add(renewEvery)
	}
	return time.Time{}
}

// ends notes for every sink that renews, and was told of the group, that the
// group is no more.
func (s *groups) ends(g *group) {
	if g.Closed != "" {
		return // as was noted when a policy closed it
	}
	for sink := range s.endings {
		if told := g.Shares[sink]; told != nil && told.Messages > 0 {
			s.ending(sink, g, told.Severity)
		}
	}
}

// ending notes for a sink that a group, as it was told at that severity, is no more.
func (s *groups) ending(sink string, g *group, severity Severity) {
	if len(s.endings[sink]) >= endingsMost {
		return
	}
	alert := g.snapshot()
	alert.Severity = severity
	s.endings[sink] = append(s.endings[sink], alert)
}

// renewed makes the message of a sink that renews: news first, then ends, then
// what is to be said again. Groups that are one alert to the receiver are told
// as one.
func (s *groups) renewed(sink *sinkWants, due []*group, turn *turn) []item {
	cells := make(map[string][]*group)
	for _, g := range s.open {
		if g.Closed == "" && sink.wants(g) {
			cells[g.cell()] = append(cells[g.cell()], g)
		}
	}
	var news, again []*group
	for _, g := range due {
		if g.untold(sink.name) > 0 {
			news = append(news, g)
		} else {
			again = append(again, g)
		}
	}
	var items []item
	add := func(groups []*group) {
		for _, g := range arrange(groups, turn)[:min(len(groups), sink.most-len(items))] {
			told := g.Shares[sink.name]
			items = append(items, item{
				Alert: together(cells[g.cell()]), New: g.untold(sink.name), Repeat: told != nil && told.Messages > 0, GroupKey: g.Key,
			})
		}
	}
	add(news)
	items = append(items, s.endingItems(sink, cells, sink.most-len(items))...)
	add(again)
	return items
}

// endingItems takes at most that many of a sink's ends. An alert of which
// another group is still open has not ended.
func (s *groups) endingItems(sink *sinkWants, cells map[string][]*group, most int) []item {
	var items []item
	waiting := s.endings[sink.name]
	for len(waiting) > 0 && len(items) < most {
		alert := waiting[0]
		waiting = waiting[1:]
		if len(cells[alert.cell()]) == 0 {
			items = append(items, item{Alert: alert, Repeat: true, Ended: true})
		}
	}
	s.endings[sink.name] = waiting
	return items
}

// together is what groups come to that are one alert to the receiver: the
// latest of them, with the counts and times of all.
func together(groups []*group) Alert {
	latest := slices.MaxFunc(groups, func(a, b *group) int { return cmp.Or(a.Last.Compare(b.Last), cmp.Compare(b.Key, a.Key)) })
	alert := latest.snapshot()
	if len(groups) == 1 {
		return alert
	}
	alert.Count = 0
	for _, g := range groups {
		alert.Count += g.Count
		if g.First.Before(alert.First) {
			alert.First = g.First
		}
	}
	alert.Summary += fmt.Sprintf(" (and %d more alike)", len(groups)-1)
	return alert
}
