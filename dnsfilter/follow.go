package dnsfilter

import (
	"container/list"
	"sync"
	"time"

	"sallyport/allowlists"
)

// maxFollows bounds the SRV targets remembered for each pool.
const maxFollows = 1024

// follows remembers the targets of SRV answers: they follow like CNAMEs, so
// the pool that asked may ask for their addresses, on behalf of the host whose
// service it asked for. A target is never allowed to another pool, nor by
// itself. Safe for concurrent use.
type follows struct {
	mu    sync.Mutex
	pools map[string]*followPool // of those pools that have any
}

// followPool is one pool's part.
type followPool struct {
	byTarget map[allowlists.Host]*list.Element // of *follow
	oldest   *list.List                        // newest first
}

// follow says on whose behalf a target may be asked for, and until when.
type follow struct {
	target, asker allowlists.Host
	expires       time.Time
}

func newFollows() *follows { return &follows{pools: make(map[string]*followPool)} }

// add remembers a target. Beyond the pool's bound the oldest is forgotten.
func (fs *follows) add(pool string, f follow) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	p := fs.pools[pool]
	if p == nil {
		p = &followPool{byTarget: make(map[allowlists.Host]*list.Element), oldest: list.New()}
		fs.pools[pool] = p
	}
	p.remove(p.byTarget[f.target])
	if len(p.byTarget) >= maxFollows {
		p.remove(p.oldest.Back())
	}
	p.byTarget[f.target] = p.oldest.PushFront(&f)
}

// asker finds on whose behalf a pool may ask for target.
func (fs *follows) asker(pool string, target allowlists.Host, now time.Time) (allowlists.Host, bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	p := fs.pools[pool]
	if p == nil || p.byTarget[target] == nil {
		return allowlists.Host{}, false
	}
	f := p.byTarget[target].Value.(*follow)
	return f.asker, now.Before(f.expires)
}

// keepOnly drops the targets whose time is over, or whose asker keep refuses.
func (fs *follows) keepOnly(now time.Time, keep func(pool string, asker allowlists.Host) bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for name, p := range fs.pools {
		for _, e := range p.byTarget {
			if f := e.Value.(*follow); !now.Before(f.expires) || !keep(name, f.asker) {
				p.remove(e)
			}
		}
		if len(p.byTarget) == 0 {
			delete(fs.pools, name)
		}
	}
}

// remove takes an element out; nil is none.
func (p *followPool) remove(e *list.Element) {
	if e != nil {
		delete(p.byTarget, p.oldest.Remove(e).(*follow).target)
	}
}
