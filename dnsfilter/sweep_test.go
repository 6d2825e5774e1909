package dnsfilter

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/miekg/dns"

	"sallyport/allowlists"
)

func TestPolicyChangedDropsWhatIsNoLongerAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := offline(t, func(name string, qtype uint16) (*dns.Msg, error) {
			if qtype == dns.TypeSRV {
				m := new(dns.Msg).SetQuestion(name, qtype)
				rr, _ := dns.NewRR(name + " 60 IN SRV 1 1 80 target.elsewhere.example.")
				m.Answer = []dns.RR{rr}
				return m, nil
			}
			return answered(name, qtype, 60), nil
		})
		for _, name := range []string{"allowed.example.", "a.wild.example.", "b.wild.example."} {
			s.handle(context.Background(), asks(t, name), poolOrigin)
		}
		srv := new(dns.Msg).SetQuestion("_http._tcp.svc.example.", dns.TypeSRV)
		s.handle(context.Background(), packed(t, srv), poolOrigin)
		s.PolicyChanged()
		synctest.Wait()
		if names, _ := s.book.sizes(); names != 3 || s.cache.entries() != 4 || len(s.follows.pools) != 1 {
			t.Fatalf("%d names, %d answers, %d pools with targets, though nothing changed", names, s.cache.entries(), len(s.follows.pools))
		}
		next, err := allowlists.NewPolicy(allowlists.PolicySpec{Pools: []allowlists.PoolSpec{
			{Name: "build", Allow: s.cfg.Policy().Pool("build").Spec().Allow[:1]},
		}})
		if err != nil {
			t.Fatal(err)
		}
		s.cfg.Policy = func() *allowlists.Policy { return next }
		for range 5 {
			s.PolicyChanged()
		}
		synctest.Wait()
		if names, evicted := s.book.sizes(); names != 1 || evicted != 0 || s.cache.entries() != 1 || len(s.follows.pools) != 0 {
			t.Errorf("%d names, %d answers, %d pools with targets are left", names, s.cache.entries(), len(s.follows.pools))
		}
		checkBook(t, s.book)
	})
}
