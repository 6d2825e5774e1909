package dnsfilter

import (
	"container/list"
	"errors"
	"net/netip"
	"sync"
	"time"
)

// maxRateClients bounds the clients whose rate is remembered. One that was
// forgotten begins anew, with a full second's worth.
const maxRateClients = 16384

// errLimit is the error of a question that found no room.
var errLimit = errors.New("too many questions wait for an answer")

// rates limits the questions a second of each client: a bucket that holds one
// second's worth. Beyond its bound the client unheard for longest is forgotten.
// Safe for concurrent use.
type rates struct {
	perSecond  float64
	maxClients int

	mu       sync.Mutex
	byClient map[rateKey]*list.Element // of *bucket
	heard    *list.List                // last heard first
}

// A rateKey is one client of one pool: a client that is in two, as loopback is
// through pools' own listeners, uses up neither's rate in the other.
type rateKey struct {
	pool   string
	client netip.Addr
}

// bucket is what one client may ask at once.
type bucket struct {
	client rateKey
	tokens float64
	filled time.Time
}

func newRates(perSecond, maxClients int) *rates {
	return &rates{
		perSecond: float64(perSecond), maxClients: maxClients,
		byClient: make(map[rateKey]*list.Element), heard: list.New(),
	}
}

// take counts one question; false if it is over the client's rate.
func (r *rates) take(client rateKey, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.byClient[client]
	if e == nil {
		if len(r.byClient) >= r.maxClients {
			oldest := r.heard.Remove(r.heard.Back()).(*bucket)
			delete(r.byClient, oldest.client)
		}
		e = r.heard.PushFront(&bucket{client: client, tokens: r.perSecond, filled: now})
		r.byClient[client] = e
	}
	r.heard.MoveToFront(e)
	b := e.Value.(*bucket)
	if gone := now.Sub(b.filled); gone > 0 {
		b.tokens = min(r.perSecond, b.tokens+gone.Seconds()*r.perSecond)
		b.filled = now
	}
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
