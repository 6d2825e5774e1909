package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"sallyport/alerting"
	"sallyport/proxy/firewall"
)

// measureEvery is how often enforcement is measured; what holds no more is told
// when it was seen twice.
const measureEvery = 5 * time.Second

// faultsEvery is how often other faults of the same state are told: those of a
// job's processes come and go with them.
const faultsEvery = time.Minute

// A measurement is what one look at the enforcement found.
type measurement struct {
	Placement string   `json:"placement"`
	Enforced  bool     `json:"enforced"`
	State     string   `json:"state"`  // in-place, not-in-place, unknown
	By        string   `json:"by"`     // table, probe, none
	Faults    []string `json:"faults"` // what is wrong, or why it is not known
	At        string   `json:"measured_at,omitempty"`
}

// An enforcement measures whether the firewall stands. The methods named probed
// are safe for concurrent use.
type enforcement struct {
	prober   atomic.Pointer[firewall.Prober] // nil without a child
	probeUID uint32                          // its user
	probePID int                             // 0 if it was never started

	mu    sync.Mutex
	last  measurement // what status says
	stale string      // why the tables are not those of the policy in force; "" if they are
	bad   int         // misses in a row

	// For the goroutine that measures.
	told   measurement // by an event
	toldAt time.Time
}

// prepareEnforcement starts what measuring needs while the daemon may still do
// everything: where it will not be allowed to read the tables, the child that
// probes by effect, under another user.
func (d *daemon) prepareEnforcement() error {
	d.enforcement.last = measurement{Placement: d.placementName(), State: tableUnknown, By: "none", Faults: []string{"not measured yet"}}
	if d.placement != firewall.Sidecar || d.options.firewall != "" || !d.options.uidSaid || os.Geteuid() != 0 {
		return nil
	}
	d.enforcement.probeUID = d.options.uid + 1
	in, out, pid, err := startProbe(d.enforcement.probeUID)
	if err != nil {
		return fmt.Errorf("starting the probe that measures the firewall: %w", err)
	}
	d.enforcement.probePID = pid
	d.enforcement.prober.Store(firewall.NewProber(in, out))
	return nil
}

// newProbe is what the child runs.
func newProbe() *cobra.Command {
	return &cobra.Command{
		Use: "probe", Hidden: true, Args: cobra.NoArgs,
		Short:   "Try what the firewall must refuse, for the daemon that started this",
		Example: "  (run by sallyport run)",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return errors.Join(giveUpEverything(), firewall.Probe(cmd.InOrStdin(), cmd.OutOrStdout()))
		},
	}
}

// probedConn reports whether a redirected connection is a probe of ours, which
// is closed without a record.
func (e *enforcement) probedConn(to netip.AddrPort) bool {
	p := e.prober.Load()
	return p != nil && p.Conn(to)
}

// probedName reports whether a question is a probe of ours, which is refused
// without a record.
func (e *enforcement) probedName(name string) bool {
	p := e.prober.Load()
	return p != nil && p.Name(name)
}

// probedPacket reports whether a refused packet is of the child that probes. A
// job may run as the same user, so it must be one that was issued.
func (e *enforcement) probedPacket(p firewall.Packet) bool {
	prober := e.prober.Load()
	return prober != nil && p.HasUID && p.UID == e.probeUID && prober.Issued(p.Dst)
}

// measureEnforcement measures until ctx ends, and says in metric, event and
// status what it finds.
func (d *daemon) measureEnforcement(ctx context.Context) error {
	if d.placement == "" {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(measureEvery)
	defer tick.Stop()
	for {
		m := d.measure(ctx)
		if ctx.Err() != nil {
			return nil // what was cut short says nothing
		}
		d.tellMeasurement(m)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// reapplying takes note of whether the tables could follow a reload.
func (e *enforcement) reapplying(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stale = ""; err != nil {
		e.stale = err.Error()
	}
}

// measure looks once.
func (d *daemon) measure(ctx context.Context) measurement {
	m := measurement{Placement: d.placementName(), At: time.Now().UTC().Format(time.RFC3339)}
	plan, err := d.standingPlan()
	if err != nil {
		m.State, m.By, m.Faults = tableUnknown, "none", []string{err.Error()}
		return m
	}
	state := stateOf(plan)
	m.State, m.By, m.Faults = state.State, state.By, state.Faults
	if state.State == tableUnknown {
		m.Faults = []string{state.Unknown}
		d.byProbe(ctx, plan, &m)
	}
	d.enforcement.mu.Lock()
	if stale := d.enforcement.stale; stale != "" {
		m.State, m.Faults = tableNotInPlace, append(m.Faults, stale)
	}
	d.enforcement.mu.Unlock()
	if d.placement == firewall.Sidecar {
		d.byJobs(plan, &m)
	}
	m.Enforced = m.State == tableInPlace
	return m
}

// standingPlan is what the kernel should hold: what we put there, or what
// another process should have.
func (d *daemon) standingPlan() (*firewall.Plan, error) {
	d.tables.mu.Lock()
	plan := d.tables.plan
	d.tables.mu.Unlock()
	if plan != nil {
		return plan, nil
	}
	return d.firewallPlan()
}

// byProbe measures by effect, where there is a child for it.
func (d *daemon) byProbe(ctx context.Context, plan *firewall.Plan, m *measurement) {
	p := d.enforcement.prober.Load()
	if p == nil {
		m.Faults = append(m.Faults, "and measuring by effect needs a start as root with --uid in a sidecar")
		return
	}
	private := append(d.privateAddrs(), firewall.HiddenDoors("/proc/self", plan.Resolvers)...)
	faults, err := p.Round(ctx, &plan.Ways[0], private)
	switch {
	case err != nil:
		d.enforcement.prober.Store(nil)
		m.Faults = append(m.Faults, err.Error())
	case len(faults) > 0:
		m.State, m.By, m.Faults = tableNotInPlace, "probe", faults
	default:
		m.State, m.By, m.Faults = tableInPlace, "probe", []string{}
	}
}

// privateAddrs are our own TCP listeners that no job may reach.
func (d *daemon) privateAddrs() []netip.AddrPort {
	var addrs []netip.AddrPort
	for _, l := range d.http {
		if addr, ok := l.Addr().(*net.TCPAddr); ok {
			at := addr.AddrPort()
			if at.Addr().IsUnspecified() {
				at = netip.AddrPortFrom(loopback, at.Port())
			}
			addrs = append(addrs, at)
		}
	}
	return addrs
}

// byJobs adds what the job's processes may do. One that nobody sees may do
// anything: then enforcement is not known.
func (d *daemon) byJobs(plan *firewall.Plan, m *measurement) {
	jobs := firewall.Jobs{Root: "/proc", Self: os.Getpid(), Child: d.enforcement.probePID, Own: plan.Own}
	faults, seen, err := jobs.Faults()
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		faults = append(faults, err.Error())
	case len(faults) == 0 && seen > 0:
		return
	}
	m.Faults = append(m.Faults, faults...)
	if len(faults) > 0 {
		m.State = tableNotInPlace
		return
	}
	m.Faults = append(m.Faults, "no process of a job can be seen, so nobody knows what it may do: share the PID namespace (Kubernetes: shareProcessNamespace, Docker: --pid container:…)")
	if m.State == tableInPlace {
		m.State = tableUnknown
	}
}

// tellMeasurement keeps a measurement, and tells of a change. What no longer
// holds is told when it was seen twice in a row.
func (d *daemon) tellMeasurement(m measurement) {
	e := &d.enforcement
	e.mu.Lock()
	if m.State == tableNotInPlace {
		e.bad++
	} else {
		e.bad = 0
	}
	if e.bad == 1 && e.last.State != tableNotInPlace {
		e.mu.Unlock()
		return
	}
	e.last = m
	e.mu.Unlock()
	d.metrics.enforced(m.Placement, m.Enforced)
	if same := e.told.State == m.State && e.told.By == m.By; same && (slices.Equal(e.told.Faults, m.Faults) || time.Since(e.toldAt) < faultsEvery) {
		return
	}
	// Once measured, by none is no state to stay in: whoever stopped it may be the job.
	lost := m.By == "none" && (e.told.By == "table" || e.told.By == "probe")
	e.told, e.toldAt = m, time.Now()
	d.alerts.System(alerting.SystemEnforcement, map[string]any{"placement": m.Placement, "state": m.State, "by": m.By, "faults": m.Faults, "lost": lost})
	if m.State == tableInPlace {
		d.log.Info().Str("by", m.By).Msg("nothing leaves by another way: measured")
	} else {
		d.log.Warn().Str("by", m.By).Strs("faults", m.Faults).Msg("enforcement is " + m.State)
	}
}

// enforcementStatus is what /api/v1/status says of it.
func (d *daemon) enforcementStatus() measurement {
	if d.placement == "" {
		return measurement{
			Placement: "explicit", State: tableUnknown, By: "none",
			Faults: []string{"explicit mode leaves enforcement to the network around the job"},
		}
	}
	d.enforcement.mu.Lock()
	defer d.enforcement.mu.Unlock()
	return d.enforcement.last
}
