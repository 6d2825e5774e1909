package proxy

import (
	"maps"
	"net/netip"
	"sync"
	"time"
)

// The bounds of the accounts of upload_limit. Nothing is ever pushed out by
// something new: an account that could be made to be forgotten would be no limit.
const (
	// uploadAccounts is how many accounts one pool has, besides the shared ones.
	uploadAccounts = 32_768
	// uploadAccountsPerClient is how many hosts one client has accounts for;
	// all further ones share one account of that client.
	uploadAccountsPerClient = 256
	// uploadClients is how many clients of a pool have a shared account of their
	// own; all further ones share the pool's.
	uploadClients = 8_192
	// uploadSlice is how finely the rolling hour moves: bytes count for an hour
	// at least, and at most this much longer.
	uploadSlice = 5 * time.Minute
	// uploadSlices hold an hour, and the slice that is being filled.
	uploadSlices = int64(time.Hour/uploadSlice) + 1
)

// uploads are the accounts of what each client sent to each host with an
// upload_limit within the last hour. They are safe for concurrent use, end with
// the process, and know nothing of limits: whoever takes says what the limit is
// by the policy now in force. Pools come from configuration.
type uploads struct {
	begun time.Time // where slices are counted from, by the monotonic clock

	mu    sync.Mutex // guards all below, and account.users
	pools map[string]*poolUploads
}

// poolUploads are the accounts of one pool.
type poolUploads struct {
	accounts map[uploadKey]*account
	hosts    map[netip.Addr]int // accounts of each client, without the shared one
	own      int                // accounts that are not shared
	swept    int64              // the slice in which they were last swept
}

// An uploadKey says whose account it is. Host is a canonical name or an address;
// "" is for all that have none of their own, and then the zero client is for all
// clients.
type uploadKey struct {
	client netip.Addr // allowlists.Subject.Key
	host   string
}

func newUploads() *uploads {
	return &uploads{begun: time.Now(), pools: make(map[string]*poolUploads)}
}

// slice numbers the slice that is being filled.
func (u *uploads) slice() int64 { return int64(time.Since(u.begun) / uploadSlice) }

// open gives the account of a client for a host. It is kept as long as it is
// open or bytes of the last hour are in it.
func (u *uploads) open(pool string, client netip.Addr, host string) *account {
	u.mu.Lock()
	defer u.mu.Unlock()
	p := u.pools[pool]
	if p == nil {
		p = &poolUploads{accounts: make(map[uploadKey]*account), hosts: make(map[netip.Addr]int)}
		u.pools[pool] = p
	}
	if now := u.slice(); now != p.swept {
		p.swept = now
		p.sweep(now)
	}
	a := p.find(uploadKey{client, host})
	if a.uploads == nil {
		a.uploads = u
	}
	a.users++
	return a
}

// find gives the account for key, or the shared one that stands in for it where
// there is no room.
func (p *poolUploads) find(key uploadKey) *account {
	if a := p.accounts[key]; a != nil {
		return a
	}
	if p.own < uploadAccounts && p.hosts[key.client] < uploadAccountsPerClient {
		p.own++
		p.hosts[key.client]++
		return p.add(key)
	}
	key.host = ""
	if a := p.accounts[key]; a != nil {
		return a
	}
	if len(p.accounts)-p.own < uploadClients {
		return p.add(key)
	}
	key.client = netip.Addr{}
	if a := p.accounts[key]; a != nil {
		return a
	}
	return p.add(key)
}

func (p *poolUploads) add(key uploadKey) *account {
	a := &account{}
	p.accounts[key] = a
	return a
}

// sweep forgets the accounts that nobody has open and that hold nothing.
func (p *poolUploads) sweep(now int64) {
	maps.DeleteFunc(p.accounts, func(key uploadKey, a *account) bool {
		if a.users > 0 || !a.empty(now) {
			return false
		}
		if key.host != "" {
			p.own--
			if p.hosts[key.client]--; p.hosts[key.client] == 0 {
				delete(p.hosts, key.client)
			}
		}
		return true
	})
}

// An account counts the bytes of the last hour, and those that connections hold
// for what they are about to send.
type account struct {
	uploads *uploads
	users   int // meters that have it open; uploads.mu guards it

	mu      sync.Mutex // guards all below
	sent    [uploadSlices]int64
	newest  int64         // number of the slice being filled
	total   int64         // of sent
	held    int64         // taken and not settled
	waiting int           // takers that wait for what others hold
	changed chan struct{} // closed at the next settlement, while somebody waits
}

// close ends one open.
func (a *account) close() {
	if a == nil {
		return
	}
	a.uploads.mu.Lock()
	defer a.uploads.mu.Unlock()
	a.users--
}

// roll forgets what is older than an hour. The caller holds mu.
func (a *account) roll(now int64) {
	for steps := min(now-a.newest, uploadSlices); steps > 0; steps-- {
		oldest := (now - steps + 1) % uploadSlices
		a.total -= a.sent[oldest]
		a.sent[oldest] = 0
	}
	a.newest = max(a.newest, now)
}

func (a *account) empty(now int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.roll(now)
	return a.total == 0 && a.held == 0
}

// left is how much of limit nobody has sent or holds. The caller holds mu.
func (a *account) left(limit int64) int64 {
	a.roll(a.uploads.slice())
	return max(0, limit-a.total-a.held)
}

// take holds up to want bytes that are there to be sent now. busy is set if it
// gave less and others hold some that they may give back; wait is closed when
// they settle. Whoever waits calls waited after it.
func (a *account) take(want, limit int64) (got int64, busy bool, wait <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	left := a.left(limit)
	if left < want && a.held > 0 {
		if a.changed == nil {
			a.changed = make(chan struct{})
		}
		a.waiting++
		return 0, true, a.changed
	}
	got = min(want, left)
	a.held += got
	return got, false, nil
}

func (a *account) waited() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting--
}

// takeNow is take that does not wait for others.
func (a *account) takeNow(want, limit int64) int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	got := min(want, a.left(limit))
	a.held += got
	return got
}

// speculate holds bytes that may or may not come: at most a part of what is
// left, so that a connection that stalls holds up no other, and nothing while
// others wait.
func (a *account) speculate(want, limit int64) int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.waiting > 0 {
		return 0
	}
	got := min(want, a.left(limit)/speculativePart)
	a.held += got
	return got
}

// settle gives back what was held, of which used was sent. It gives the total
// of the last hour. used may be more than held, where nothing is refused.
func (a *account) settle(held, used int64) (total int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.roll(a.uploads.slice())
	a.held -= held
	a.sent[a.newest%uploadSlices] += used
	a.total += used
	if a.changed != nil {
		close(a.changed)
		a.changed = nil
	}
	return a.total
}
