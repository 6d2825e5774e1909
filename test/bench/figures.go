//go:build linux

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A figure is one thing that is measured on some subjects.
type figure struct {
	name     string
	title    string
	group    string   // may be named instead of the figure
	subjects []string // in the order in which they take turns
	base     string   // subject that the others' ratios are taken of
	shown    measureName
	fresh    bool // each repetition wants a subject started for it, alone
	long     bool // runs only where it is asked for
	run      func(*world, *subject) Sample
}

// Who takes part in what.
var (
	proxies   = []string{"relay", "sallyport", "squid", "goproxy", "smokescreen", "tinyproxy"}
	carriers  = []string{"direct", "relay", "sallyport", "squid", "goproxy", "smokescreen"}
	resolvers = []string{"echo", "sallyport", "sallyport-nolog", "unbound", "unbound-log", "dnsmasq-log", "coredns", "miekg"}
	bySize    = []string{"sallyport-10", "sallyport-many"}
)

// figures are all figures, in the order of the report.
var figures = []figure{
	{name: "setup", title: "tunnels set up, 32 at once", subjects: append([]string{"direct"}, proxies...), base: "relay", shown: rate, run: setup(32)},
	{name: "setup1", title: "tunnels set up, one at a time", subjects: append([]string{"direct"}, proxies...), base: "relay", shown: p50, run: setup(1)},
	{name: "refused", title: "CONNECTs refused, 32 at once", subjects: proxies, base: "relay", shown: rate, run: withClient(func(w *world, c *client) Sample {
		return hammer(c.s.pid, 32, w.length, c.beRefused)
	})},
	{name: "page-setup", group: "page", title: "tunnels set up, 32 at once, while a page is open, and while none is", subjects: []string{"sallyport", "sallyport-page"}, base: "sallyport", shown: rate, run: whileOpen(setup(32))},
	{name: "page-refused", group: "page", title: "DNS questions refused while a page is open, and while none is", subjects: []string{"sallyport", "sallyport-page"}, base: "sallyport", shown: rate, run: whileOpen(asked(quiz{next: inTurn(blockedNames(askedNames)), refused: true, sockets: 4, flying: 16}))},
	{name: "ping", title: "64 bytes to and fro through one tunnel", subjects: append([]string{"direct"}, proxies...), base: "relay", shown: p50, run: withClient(func(w *world, c *client) Sample {
		return ping(c, max(100, int(5000*w.length.Seconds())))
	})},
	{name: "bulk1-down", group: "bulk", title: "GB from the origin, 1 stream", subjects: carriers, base: "relay", shown: rate, run: moved(1, 1, false)},
	{name: "bulk1-up", group: "bulk", title: "GB to the origin, 1 stream", subjects: carriers, base: "relay", shown: rate, run: moved(1, 1, true)},
	{name: "bulk8-down", group: "bulk", title: "GB from the origin, 8 streams", subjects: carriers, base: "relay", shown: rate, run: moved(8, 1.5, false)},
	{name: "bulk8-up", group: "bulk", title: "GB to the origin, 8 streams", subjects: carriers, base: "relay", shown: rate, run: moved(8, 1.5, true)},
	{name: "http", title: "plain HTTP GETs, 32 connections kept", subjects: []string{"direct", "sallyport", "squid", "goproxy", "smokescreen"}, base: "goproxy", shown: rate, run: withClient(func(w *world, c *client) Sample {
		return requests(c, 32, w.length)
	})},
	{name: "idle", title: "idle tunnels", subjects: []string{"relay", "sallyport", "squid", "goproxy", "smokescreen"}, base: "relay", shown: each, fresh: true, run: withClient(func(w *world, c *client) Sample {
		return idleTunnels(c, w.idle, max(w.length, time.Second))
	})},
	{name: "cached", group: "dns", title: "DNS questions answered from the cache", subjects: resolvers, base: "unbound-log", shown: rate, run: asked(quiz{next: inTurn(ruleNames(askedNames)), sockets: 4, flying: 16})},
	{name: "refused-dns", group: "dns", title: "DNS questions refused", subjects: resolvers[1:], base: "unbound-log", shown: rate, run: asked(quiz{next: inTurn(blockedNames(askedNames)), refused: true, sockets: 4, flying: 16})},
	{name: "uncached", group: "dns", title: "DNS questions asked upstream", subjects: resolvers[1:], base: "unbound-log", shown: rate, run: asked(quiz{next: neverTwice(wildZone), sockets: 4, flying: 16})},
	{name: "many-setup", group: "many", title: "tunnels with many rules and with 10", subjects: bySize, base: "sallyport-10", shown: rate, run: setup(32)},
	{name: "many-cached", group: "many", title: "cached DNS with many rules and with 10", subjects: bySize, base: "sallyport-10", shown: rate, run: asked(quiz{next: inTurn(ruleNames(10)), sockets: 4, flying: 16})},
	{name: "many-refused", group: "many", title: "refused DNS with many rules and with 10", subjects: bySize, base: "sallyport-10", shown: rate, run: asked(quiz{next: inTurn(blockedNames(askedNames)), refused: true, sockets: 4, flying: 16})},
	{name: "ready", title: "from the start to the first tunnel or answer", subjects: []string{"relay", "sallyport", "sallyport-10", "sallyport-many", "squid", "goproxy", "smokescreen", "tinyproxy", "unbound-log", "dnsmasq-log", "coredns"}, base: "squid", shown: readyAfter, fresh: true, run: started},
	{name: "reload", title: "tunnels while many rules are reloaded, and while they are not", subjects: []string{"sallyport-many", "sallyport-steady"}, base: "sallyport-steady", shown: p999, run: reloadTunnels},
	{name: "reload-dns", group: "reload", title: "cached DNS while many rules are reloaded, and while they are not", subjects: []string{"sallyport-many", "sallyport-steady"}, base: "sallyport-steady", shown: p999, run: reloadAnswers},
	{name: "many-idle", title: "50,000 idle tunnels", subjects: []string{"sallyport"}, base: "sallyport", shown: each, fresh: true, long: true, run: withClient(func(w *world, c *client) Sample {
		return idleTunnels(c, 50000, max(w.length, time.Second))
	})},
}

// chosen are the figures or groups that names tell, with commas between them;
// all but the long ones if it is empty.
func chosen(names string) ([]figure, error) {
	var out []figure
	wanted := strings.FieldsFunc(names, func(r rune) bool { return r == ',' || r == ' ' })
	for _, name := range wanted {
		if !slices.ContainsFunc(figures, func(f figure) bool { return f.name == name || f.group == name }) {
			return nil, fmt.Errorf("no figure is called %q; see -help", name)
		}
	}
	for _, f := range figures {
		if slices.Contains(wanted, f.name) || (f.group != "" && slices.Contains(wanted, f.group)) || (len(wanted) == 0 && !f.long) {
			out = append(out, f)
		}
	}
	return out, nil
}

// withClient makes a figure of what a client does.
func withClient(run func(*world, *client) Sample) func(*world, *subject) Sample {
	return func(w *world, s *subject) Sample {
		c, err := newClient(s)
		if err != nil {
			return failed(err)
		}
		return run(w, c)
	}
}

func setup(atOnce int) func(*world, *subject) Sample {
	return withClient(func(w *world, c *client) Sample { return hammer(c.s.pid, atOnce, w.length, c.setUp) })
}

// moved scales the amount with the length of a repetition.
func moved(streams int, gigabytes float64, up bool) func(*world, *subject) Sample {
	return withClient(func(w *world, c *client) Sample { return bulk(c, streams, gigabytes*w.length.Seconds(), up) })
}

func asked(q quiz) func(*world, *subject) Sample {
	return func(w *world, s *subject) Sample {
		one := q
		one.length = w.length
		return hold(s, one)
	}
}

// started is of a subject that was just started, and says how long that took.
func started(w *world, s *subject) Sample {
	out := newSample()
	out.Ops = 1
	out.Values[readyAfter] = float64(s.took.Microseconds()) / 1e3
	time.Sleep(w.length + w.length/2) // what the start took is given back
	out.Values[rss] = float64(residentKiB(s.pid)) / 1024
	return out
}
