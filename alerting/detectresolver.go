package alerting

import (
	"fmt"
	"time"

	"sallyport/allowlists"
)

// foreignResolver raises foreign-resolver: DNS over HTTPS, TLS, QUIC or plainly
// to anyone but us. One group per pool and resolver. It keeps no state.
type foreignResolver struct{}

func (foreignResolver) observe(e *Event, _ time.Time) (findings []finding) {
	if !decides(e) {
		return nil
	}
	if e.Cause() == allowlists.ResolverBypass && !e.Search {
		f := found(e, AlertForeignResolver, High)
		if f.subject = f.host; f.subject == "" && f.ip.IsValid() {
			f.subject = f.ip.String()
		}
		f.summary = fmt.Sprintf("%s wanted the resolver %s in %s", f.asker, destination(f.host, f.ip, f.port), poolName(f.pool))
		findings = append(findings, f)
	}
	if e.Kind == KindDNS && e.Resolver.IsValid() {
		f := found(e, AlertForeignResolver, High)
		f.subject, f.host, f.ip, f.port = e.Resolver.String(), "", e.Resolver, 53
		f.summary = fmt.Sprintf("%s wanted the resolver %s in %s; we answered in its place", f.asker, destination("", f.ip, f.port), poolName(f.pool))
		findings = append(findings, f)
	}
	return findings
}

func (foreignResolver) expire(time.Time) {}
