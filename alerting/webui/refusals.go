package webui

import (
	"cmp"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"sallyport/alerting"
)

// The bounds of the refusals that are summed up.
const (
	maxRefusals       = 100 // that are shown
	maxRefusalClients = 5   // that are named of each
)

// A refusal is a destination that was refused to a pool, or would be by enforce.
type refusal struct {
	What    string
	Pool    string
	Verdict string
	Word    string
	Reason  string
	Count   int
	Clients []string
	More    int // further clients
	First   time.Time
	Last    time.Time
	ID      string // of the latest
	Advice  advice

	clients map[netip.Addr]bool
	event   alerting.Event // the latest
}

// A refusalsPage is the list of them.
type refusalsPage struct {
	Filter   filter
	Pools    []string
	Refusals []*refusal
	More     int
	Oldest   time.Time // from when the recent events are
}

// refusals shows what was refused most, of the decisions that are remembered.
func (p *Pages) refusals(w http.ResponseWriter, r *http.Request) {
	f := parseFilter(r.URL.Query())
	done, ok := p.look(r.Context())
	if !ok {
		return
	}
	page := refusalsPage{Filter: f, Pools: p.poolNames()}
	page.Refusals, page.Oldest = p.sumRefusals(&f)
	done()
	if len(page.Refusals) > maxRefusals {
		page.More = len(page.Refusals) - maxRefusals
		page.Refusals = page.Refusals[:maxRefusals]
	}
	for _, one := range page.Refusals {
		one.finish(p)
	}
	code := http.StatusOK
	if len(f.Faults) > 0 {
		code = http.StatusBadRequest
	}
	p.show(w, r, code, "refusals", "Refusals", page)
}

// sumRefusals counts refusals by pool and destination, the most first. A
// question and a connection to port 443 are one destination, as one line allows both.
func (p *Pages) sumRefusals(f *filter) (list []*refusal, oldest time.Time) {
	sums := make(map[string]*refusal)
	p.config.Events.Recent(func(first, latest []byte) bool { return lineRefused(first) || lineRefused(latest) }, func(e, latest *alerting.Event) bool {
		if latest != nil && latest.Kind == e.Kind {
			e = latest
		}
		oldest = e.Time
		verdict := verdictOf(e)
		if verdict == verdictAllowed || !f.matches(e) {
			return true
		}
		port := e.Port
		if port == 0 {
			port = 443
		}
		what := destinationOf(e)
		key := e.Pool + "\x00" + what
		if e.Kind == alerting.KindDNS {
			key += ":" + strconv.Itoa(int(port))
		}
		one := sums[key]
		if one == nil { // the latest comes first
			one = &refusal{
				What: clipped(what), Pool: e.Pool, Verdict: verdict, Word: verdictWords[verdict], Reason: e.Cause().String(), Last: e.Time, ID: e.ID,
				clients: make(map[netip.Addr]bool), event: *e,
			}
			sums[key] = one
			list = append(list, one)
		}
		one.Count++
		one.First = e.Time
		one.clients[e.Client] = true
		return true
	})
	slices.SortStableFunc(list, func(a, b *refusal) int { return cmp.Compare(b.Count, a.Count) })
	return list, oldest
}

// finish fills in what only what is shown needs.
func (one *refusal) finish(p *Pages) {
	one.Advice = p.adviceFor(&one.event)
	for client := range one.clients {
		one.Clients = append(one.Clients, addrText(client))
	}
	slices.Sort(one.Clients)
	if len(one.Clients) > maxRefusalClients {
		one.More = len(one.Clients) - maxRefusalClients
		one.Clients = one.Clients[:maxRefusalClients]
	}
}
