package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"

	"sallyport/allowlists"
)

// maxExplained bounds one value from the client inside an explanation, in bytes.
const maxExplained = 260

// explain is the body of a refusal: one sentence a person can act on, in
// printable ASCII. It says who was refused what, by which pool and rule, and
// what would allow it.
func explain(rec *ConnRecord, t *trip, denial *allowlists.DeniedError) string {
	where := printable(clip(destination(rec), maxExplained))
	if where == "" {
		where = "an unnamed destination"
	}
	who := rec.Subject.Client.String()
	if pool := rec.Subject.Pool; pool != "" {
		who += " in pool " + pool
	}
	cause := because(rec, t, denial)
	verb := "was refused"
	if denial.Decision.Reason.Failure() {
		verb = "may reach"
	}
	return printable(fmt.Sprintf("%s %s %s: %s (decision %s).", who, verb, where, cause, rec.ID))
}

// because says why, and what to do.
func because(rec *ConnRecord, t *trip, denial *allowlists.DeniedError) string {
	target := t.target
	rule := denial.Decision.Rule
	at := ""
	if rule != nil {
		at = fmt.Sprintf("%q at %s", rule.Text, rule.Where())
	}
	switch reason := denial.Decision.Reason; reason {
	case allowlists.NotInAllowlist:
		return "no rule names this host; to allow it, add the line " + allowLine(target)
	case allowlists.PortNotAllowed:
		return fmt.Sprintf("rule %s has other ports; to allow this one, add the line %s", at, allowLine(target))
	case allowlists.ExpiredRule:
		return fmt.Sprintf("rule %s has expired; to allow it again, change its expires, or add the line %s", at, allowLine(target))
	case allowlists.DeniedByRule:
		return fmt.Sprintf("deny rule %s covers it; only removing that rule would allow it", at)
	case allowlists.AddressLiteral:
		return literalText(rec, target)
	case allowlists.AddressMismatch:
		return "it was made to an address that no answer of ours gave this pool, and named no host; ask for a name that the pool allows, or add the line " + allowLine(t.s.wanted())
	case allowlists.SpecialAddress:
		return specialText(t, denial.Addr, at)
	case allowlists.HostMismatch:
		return "the Host field names another host than the one that was judged; send the request with the Host of its URI"
	case allowlists.ResolverBypass:
		return "it is a public DNS resolver, which would get around the filter; if it is meant, add the exact line " + allowLine(target)
	case allowlists.NoPool:
		return fmt.Sprintf("no pool has this client; to admit it, add %s to the sources of one", rec.Subject.Client)
	case allowlists.BadHost, allowlists.BadRequest:
		return fmt.Sprintf("the request is not understood, as %s; an HTTP proxy takes CONNECT host:port and http:// URIs", failure(denial))
	case allowlists.LimitExceeded:
		return fmt.Sprintf("a limit is reached, as %s; try again later, or raise it", failure(denial))
	case allowlists.NoSuchHost, allowlists.UpstreamFailed, allowlists.TimedOut:
		return fmt.Sprintf("the policy allows it, but %s: %s", worldText(reason), failure(denial))
	case allowlists.LogDegraded:
		return "the event log is not being written and log.on_error is deny; mend the log"
	case allowlists.NotReady, allowlists.ShuttingDown:
		return fmt.Sprintf("the proxy takes no new work now (%s); try again", reason)
	default:
		return fmt.Sprintf("the reason is %s; see docs/reasons.md", reason)
	}
}

// worldText says what the world did not do.
func worldText(reason allowlists.Reason) string {
	switch reason {
	case allowlists.NoSuchHost:
		return "the name has no address"
	case allowlists.TimedOut:
		return "there was no answer in time"
	default:
		return "the destination, or its resolver, cannot be reached"
	}
}

// allowLine is the line that would admit a target.
func allowLine(target allowlists.Target) string {
	if target.Addr.IsValid() {
		return fmt.Sprintf("%q", allowlists.AllowAddrLine(target.Addr, target.Port))
	}
	return fmt.Sprintf("%q", allowlists.AllowLine(target.Host, target.Port))
}

// literalText explains address-literal.
func literalText(rec *ConnRecord, target allowlists.Target) string {
	if len(rec.Names) > 0 {
		return fmt.Sprintf("host rules never match an address; ask for it by its name (this pool was answered with it for %s)",
			strings.Join(rec.Names[:min(len(rec.Names), 3)], ", "))
	}
	return "no cidr rule covers this address; ask for it by a name that the pool allows, or add the line " + allowLine(target)
}

// specialText explains special-address.
func specialText(t *trip, addr netip.Addr, at string) string {
	if !addr.IsValid() {
		addr = t.target.Addr
	}
	class := allowlists.SpecialClass(addr)
	literal := t.target.Addr.IsValid()
	switch {
	case t.isOwn(addr):
		return fmt.Sprintf("its address %s is one of our own listeners, which nothing opens", addr)
	case allowlists.IsMetadata(addr):
		return fmt.Sprintf("at %s a cloud gives its credentials to whoever asks; a rule that names exactly this address would open it, which is rarely meant", addr)
	case literal && allowlists.AllowAddrLine(addr, t.target.Port) == "":
		return fmt.Sprintf("the address is special (%s), and nothing opens it", class)
	case literal:
		return fmt.Sprintf("the address is special (%s); only a cidr rule inside that range opens it, such as %s", class, allowLine(t.target))
	case at == "": // audit let the name pass without a rule
		return fmt.Sprintf("its address %s is special (%s), which audit forwards no more than enforce, and no rule names this host; if that is meant, add the line \"- {host: %s, ports: [%d], resolves_to: [%s/%d]}\"",
			addr, class, t.target.Host, t.target.Port, addr.Unmap(), addr.Unmap().BitLen())
	default:
		return fmt.Sprintf("its address %s is special (%s); if that is meant, add \"resolves_to: [%s/%d]\" to rule %s",
			addr, class, addr.Unmap(), addr.Unmap().BitLen(), at)
	}
}

// failure is the cause inside a denial, in a few words. Of a failure of the
// world it tells no more than what the kernel said: the rest may name resolvers.
func failure(denial *allowlists.DeniedError) string {
	var errno syscall.Errno
	switch {
	case errors.As(denial.Err, &errno):
		return errno.Error()
	case denial.Err == nil || denial.Decision.Reason.Failure():
		return "the event log has the details"
	default:
		return clip(denial.Err.Error(), maxExplained)
	}
}
