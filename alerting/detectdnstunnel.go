package alerting

import (
	"fmt"
	"strings"
	"time"

	"sallyport/allowlists"
	"sallyport/dnsfilter"
)

// dnsTunnel raises dns-tunnel: the names that a client asks for under one
// registrable domain, or under a suffix of which anyone can own a part, carry
// more than names do. One group per pool, client and domain.
//
// The resolver refuses such questions by a Meter of its own; this one sees
// events, so that refused names count, too, and logs of other programs. Its
// state and bounds are those of dnsfilter.Meter.
type dnsTunnel struct {
	meter  *dnsfilter.Meter
	window time.Duration
	asked  dnsfilter.Carried // of the event at hand
	// listed reports whether a rule of the pool names a host exactly.
	listed func(pool, name string, now time.Time) bool
}

// TunnelLimits are those of alerts.thresholds, for the resolver too.
func TunnelLimits(alerts *allowlists.Alerts) dnsfilter.MeterLimits {
	t := alerts.Thresholds
	return dnsfilter.MeterLimits{
		Names: int(t["dns_tunnel_names"]), Bytes: int64(t["dns_tunnel_bytes"]),
		Window: time.Duration(t["dns_tunnel_window"]), DayBytes: int64(t["dns_tunnel_day_bytes"]),
	}.WithDefaults()
}

func newDNSTunnel(c *correlator) *dnsTunnel {
	limits := TunnelLimits(&c.config.alerts)
	return &dnsTunnel{meter: dnsfilter.NewMeter(limits, c.usual.has), window: limits.Window, listed: c.listed}
}

func (d *dnsTunnel) observe(e *Event, now time.Time) []finding {
	if e.Kind != KindDNS || e.Cached || e.Search || e.Reverse() {
		return nil
	}
	q := d.carried(e, now)
	switch {
	case strings.HasPrefix(e.Limit, "alerts.thresholds.dns_tunnel_"):
		return d.refused(e, d.meter.Look(q, now))
	case e.Refused() && !tunnelRefusals[e.Reason] || isLiteral(q.Name):
		return nil
	}
	t := d.meter.Count(q, now)
	if (t.Over == "" || !t.New && !t.Crossed) && (t.Domain == "" || toolOf(q.Name) == "") {
		return nil
	}
	if t.Over == "" {
		t = d.meter.Look(q, now)
	}
	return []finding{d.found(e, &t)}
}

// toolMarks are labels that only a tool for tunnels writes: dns2tcp's requests,
// as its source has them. No host name has such a label, so such questions never
// leave, and too few come for any number to tell.
var toolMarks = map[string]string{"=auth": "dns2tcp", "=connect": "dns2tcp", "=resource": "dns2tcp"}

// toolOf names the tool that writes such names; "" if none is known to.
func toolOf(name string) string {
	if !strings.Contains(name, "=") {
		return ""
	}
	for label := range strings.SplitSeq(name, ".") {
		if tool := toolMarks[label]; tool != "" {
			return tool
		}
	}
	return ""
}

func (d *dnsTunnel) expire(now time.Time) { d.meter.Sweep(now) }

// tunnelRefusals are the reasons whose refused names count: not those of a
// question that was not read, or that nobody had time for.
var tunnelRefusals = map[allowlists.Reason]bool{
	allowlists.NotInAllowlist: true, allowlists.ExpiredRule: true, allowlists.DeniedByRule: true, allowlists.ResolverBypass: true,
	allowlists.NoPool: true, allowlists.BadHost: true, allowlists.DNSTypeBlocked: true, allowlists.SpecialAddress: true,
}

// carried is an event as the meter takes it. A name that is not canonical, as
// of a tool that writes bytes, counts by its spelling: it was refused.
func (d *dnsTunnel) carried(e *Event, now time.Time) *dnsfilter.Carried {
	name := e.Host
	if name == "" {
		name = strings.ToLower(strings.TrimSuffix(e.Name, "."))
	}
	repeats := e.Upstream != ""
	d.asked = dnsfilter.Carried{
		Pool: e.Pool, Client: e.Subject().Key(), Name: name, Type: typeNumber(e.Type), Repeats: repeats, Leaks: repeats || !e.Refused(),
		Listed: !e.Refused() && d.listed(e.Pool, name, now), ID: e.ID, Missing: e.RCode == "NXDOMAIN", Answered: e.Payload + lengths(e.CNAMEs),
	}
	return &d.asked
}

// typeNumber is the number of a type that carries data or is common; else 0.
func typeNumber(name string) uint16 {
	switch name {
	case "A":
		return 1
	case "CNAME":
		return 5
	case "NULL":
		return 10
	case "MX":
		return 15
	case "TXT":
		return 16
	case "AAAA":
		return 28
	case "SVCB":
		return 64
	case "HTTPS":
		return 65
	default:
		return 0
	}
}

func lengths(texts []string) (n int) {
	for _, text := range texts {
		n += len(text)
	}
	return n
}

// refused is what a question is that the resolver did not let go, as t stands.
func (d *dnsTunnel) refused(e *Event, t dnsfilter.Tally) []finding {
	if t.Domain == "" {
		t.Domain = hostOf(e) // the meter began after the resolver's
	}
	return []finding{d.found(e, &t)}
}

// found is the finding about e, with what is known of its domain.
func (d *dnsTunnel) found(e *Event, t *dnsfilter.Tally) finding {
	f := found(e, AlertDNSTunnel, High)
	f.host, f.port = t.Domain, 0
	f.subject = t.Domain + " " + f.client.String()
	if t.Crossed || e.Limit != "" {
		f.evidence = append(t.IDs, e.ID)
	}
	does := "writes data into names"
	if tool := toolOf(strings.ToLower(e.Name)); tool != "" {
		does = "writes data as " + tool + " does into names"
	}
	f.summary = fmt.Sprintf("%s %s under %s: %d new ones and %s within %s, %s within 24h; %s (%s)",
		f.asker, does, t.Domain, t.Names, kibibytes(t.Bytes), short(d.window), kibibytes(t.DayBytes), whatLeft(e, t), shape(t))
	return f
}

// whatLeft says how much of it left the machine.
func whatLeft(e *Event, t *dnsfilter.Tally) string {
	switch {
	case t.Left == 0 && t.LeftBytes == 0 && e.Limit == "":
		return "all of it was refused, and nothing left"
	case e.Limit != "":
		return fmt.Sprintf("%d names and %s left before this one was refused", t.Left, kibibytes(t.LeftBytes))
	default:
		return fmt.Sprintf("%d names and %s have left", t.Left, kibibytes(t.LeftBytes))
	}
}

// shape describes the questions and what was answered.
func shape(t *dnsfilter.Tally) string {
	all := max(1, t.Questions)
	return fmt.Sprintf("labels of %.0f bytes with %.1f bits a letter, %d%% TXT, NULL, CNAME or MX, %d%% without such a name, %s answered",
		t.Label, t.Entropy, 100*t.Carriers/all, 100*t.Missing/all, kibibytes(t.Answered))
}

// kibibytes is a number of bytes for people.
func kibibytes(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%.1f KiB", float64(n)/1024)
}

// short is a duration without units that are zero: 10m, not 10m0s.
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// listed is dnsTunnel's: a name of the policy's, not of a job's.
func (c *correlator) listed(pool, name string, now time.Time) bool {
	if c.config.policy == nil {
		return false
	}
	policy := c.config.policy()
	if policy == nil {
		return false
	}
	host, err := allowlists.ParseHost(name)
	if err != nil {
		return false
	}
	rule := policy.Pool(pool).DecideName(host, now).Rule
	return rule != nil && rule.Host.Exact()
}
