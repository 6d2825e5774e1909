package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"sallyport/dnsfilter"
	"sallyport/proxy/firewall"
)

// A doctor looks at one place. Its functions are the kernel's, but in tests.
type doctor struct {
	job    bool          // this is the job's side, else the daemon's
	mode   firewall.Mode // "": explicit
	plan   *firewall.Plan
	byUser bool // a sidecar is known by its user, not by its cgroup
	system bool // questions go to the resolvers of resolv.conf

	machine firewall.Machine
	compare func(*firewall.Plan) ([]string, error)
	lacks   func(*firewall.Plan) ([]string, error)
	chains  func() ([]firewall.OtherChain, error)
	foreign func() bool // no capability of ours counts in this network
	// dial and send give what becomes of a connection and of a datagram; a
	// time-out is silence.
	dial, send func(netip.AddrPort) error
}

// newMachineDoctor looks at the machine that we run on.
func newMachineDoctor() *doctor {
	return &doctor{
		machine: firewall.Machine{Root: "/"}, compare: firewall.Compare, lacks: firewall.Lacks, chains: firewall.OtherChains,
		foreign: firewall.ForeignNamespace, dial: dialOnce, send: sendOnce,
	}
}

// examine looks at every layer that there is in this place.
func (d *doctor) examine() []doctorLine {
	var lines []doctorLine
	for _, l := range layers() {
		if !l.applies(d) {
			continue
		}
		line := l.check(d)
		line.Layer = l.name
		lines = append(lines, line)
	}
	return lines
}

// Where layers are looked at.
func (d *doctor) always() bool      { return true }
func (d *doctor) daemon() bool      { return !d.job }
func (d *doctor) hasPlan() bool     { return !d.job && d.mode != "" }
func (d *doctor) gateway() bool     { return !d.job && d.mode == firewall.Gateway }
func (d *doctor) fromJob() bool     { return d.job }
func (d *doctor) jobTaken() bool    { return d.job && d.mode != "" }
func (d *doctor) jobExplicit() bool { return d.job && d.mode == "" }

func (d *doctor) capability() doctorLine {
	rights, err := d.machine.Rights()
	switch {
	case err != nil:
		return adminUnread.line("why", err.Error())
	case !rights.Has("NET_ADMIN"):
		return adminMissing.line()
	case d.foreign():
		return adminForeign.line()
	}
	return adminHeld.line()
}

// whyNot says in few words why the kernel does not tell.
func whyNot(err error) string {
	if errors.Is(err, fs.ErrPermission) {
		return "that takes NET_ADMIN"
	}
	return err.Error()
}

func (d *doctor) kernel() doctorLine {
	lacks, err := d.lacks(d.plan)
	switch {
	case err != nil:
		return kernelUntold.line("why", whyNot(err))
	case len(lacks) > 0:
		return kernelLacks.line("parts", strings.Join(lacks, "; "))
	}
	return kernelTakes.line("mode", string(d.mode))
}

func (d *doctor) tables() doctorLine {
	if d.mode == "" {
		return tablesExplicit.line()
	}
	found, err := d.compare(d.plan)
	switch {
	case err != nil:
		return tablesUnread.line("why", whyNot(err))
	case len(found) > 0:
		return tablesDiffer.line("mode", string(d.mode), "differences", short(found))
	}
	return tablesInPlace.line("mode", string(d.mode))
}

// short is the front of a list.
func short(list []string) string {
	const shown = 3
	text := strings.Join(list[:min(shown, len(list))], "; ")
	if more := len(list) - shown; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return text
}

// otherTables wants no other redirect ahead of ours, in the hook where packets
// are taken.
func (d *doctor) otherTables() doctorLine {
	all, err := d.chains()
	if err != nil {
		return othersUnread.line("why", whyNot(err))
	}
	taken, arrived := "output", "output"
	if d.mode == firewall.Gateway {
		taken, arrived = "prerouting", "input"
	}
	var before, closed, after []string
	for _, c := range all {
		switch {
		case c.Hook == taken && c.BeforeOurs():
			before = append(before, c.String())
		case c.Hook == arrived && c.Kind == "filter" && c.Drops:
			closed = append(closed, c.String())
		case c.Hook == taken && c.Kind != "route":
			after = append(after, c.String())
		}
	}
	switch {
	case len(before) > 0:
		return othersBefore.line("chains", short(before))
	case len(closed) > 0:
		return othersClosed.line("chains", short(closed))
	case len(after) > 0:
		return othersAfter.line("chains", short(after))
	}
	return othersNone.line()
}

func (d *doctor) forwarding() doctorLine {
	four, ok := d.machine.Setting("net/ipv4/ip_forward")
	if !ok {
		return forwardingUnread.line()
	}
	var off []string
	if four == "0" {
		off = append(off, "net.ipv4.ip_forward")
	}
	devices, _ := d.machine.Devices6()
	if six, ok := d.machine.Setting("net/ipv6/conf/all/forwarding"); ok && six == "0" && len(devices) > 0 {
		off = append(off, "net.ipv6.conf.all.forwarding")
	}
	audit := d.plan != nil && slices.ContainsFunc(d.plan.Ways, func(w firewall.Way) bool { return w.PassesOther })
	switch {
	case len(off) == 0:
		return forwardingOn.line()
	case !audit:
		return forwardingIdle.line()
	}
	return forwardingOff.line("settings", strings.Join(off, ", "), "sets", strings.Join(off, "=1 ")+"=1")
}

// reversePath wants no strict check where answers may come back another way
// (ip-sysctl: the greater of all and the interface's own holds; 1 is strict).
func (d *doctor) reversePath() doctorLine {
	all, ok := d.machine.Setting("net/ipv4/conf/all/rp_filter")
	if !ok {
		return pathsUnread.line()
	}
	routes := d.machine.DefaultRoutes4()
	slices.Sort(routes)
	routes = slices.Compact(routes)
	var strict []string
	for _, name := range routes {
		own, _ := d.machine.Setting("net/ipv4/conf/" + name + "/rp_filter")
		if max(all, own) == "1" {
			strict = append(strict, name)
		}
	}
	if len(routes) > 1 && len(strict) > 0 {
		return pathsStrict.line("strict", strings.Join(strict, ", "), "routes", strings.Join(routes, ", "))
	}
	return pathsChecked.line()
}

// isolation looks at the bridges by which runners come in.
func (d *doctor) isolation() doctorLine {
	seen := false
	for _, name := range d.runnerDevices() {
		if _, there := d.machine.Setting("net/ipv4/conf/" + name + "/forwarding"); !there && !d.machine.IsBridge(name) {
			continue
		}
		seen = true
		if open := d.machine.OpenPorts(name); len(open) > 1 {
			return portsOpen.line("ports", short(open), "bridge", name, "first", open[0])
		}
	}
	filtered, _ := d.machine.Setting("net/bridge/bridge-nf-call-iptables")
	switch {
	case !seen:
		return portsNone.line()
	case filtered == "1":
		return portsFiltered.line()
	}
	return portsApart.line()
}

// runnerDevices are the interfaces that pools name, each once.
func (d *doctor) runnerDevices() []string {
	var names []string
	for _, way := range d.plan.Ways {
		names = append(names, way.Interfaces...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (d *doctor) translation() doctorLine {
	all, err := d.chains()
	if err != nil {
		return translationUnread.line("why", whyNot(err))
	}
	runners := d.runnerDevices()
	for _, c := range all {
		hits := slices.DeleteFunc(slices.Clone(c.Translates), func(name string) bool { return !slices.Contains(runners, name) })
		if len(hits) > 0 {
			return translationThere.line("chain", c.String(), "devices", strings.Join(hits, ", "))
		}
	}
	return translationNone.line()
}

// dockerResolver is where Docker has its own resolver in a container.
var dockerResolver = netip.MustParseAddr("127.0.0.11")

func (d *doctor) resolver() doctorLine {
	if !d.job && !d.system {
		return resolverNamed.line()
	}
	servers, err := dnsfilter.SystemNameservers(filepath.Join(d.machine.Root, resolvConf))
	if err != nil {
		return resolverNotRead.line("why", err.Error())
	}
	var names []string
	for _, s := range servers {
		names = append(names, s.String())
	}
	list := strings.Join(names, ", ")
	docker := slices.Contains(servers, dockerResolver)
	switch {
	case len(servers) == 0:
		return resolverNone.line()
	case !d.job && d.mode == firewall.Sidecar && docker:
		return resolverDocker.line()
	case !d.job:
		return resolverSystem.line("servers", list)
	case d.mode != "":
		return resolverTaken.line("servers", list)
	case docker:
		return resolverInFront.line()
	}
	return resolverUnknown.line("servers", list)
}

func (d *doctor) ipv6() doctorLine {
	devices, loopback := d.machine.Devices6()
	for _, name := range d.machine.DefaultRoutes6() {
		if !slices.Contains(devices, name) {
			devices = append(devices, name)
		}
	}
	if len(devices) == 0 {
		return sixNone.line()
	}
	list := strings.Join(devices, ", ")
	if d.mode == firewall.Sidecar && !loopback {
		return sixHalf.line("devices", list)
	}
	for _, way := range d.plan.Ways {
		var missing []string
		if way.TCP.V6 == 0 {
			missing = append(missing, "transparent")
		}
		if way.DNS.V6 == 0 {
			missing = append(missing, "dns")
		}
		if len(missing) > 0 {
			return sixClosed.line("devices", list, "pool", way.Pool, "listeners", strings.Join(missing, " and no "))
		}
	}
	return sixServed.line("devices", list)
}

func (d *doctor) rights() doctorLine {
	if d.mode == firewall.Gateway {
		return jobMachine.line()
	}
	rights, err := d.machine.Rights()
	if err != nil {
		return jobUnread.line("why", err.Error())
	}
	// In explicit mode no user is let out.
	names := rights.WayRound(d.byUser && d.mode == firewall.Sidecar)
	switch {
	case len(names) == 0:
		return jobBound.line()
	case d.foreign():
		return jobApart.line()
	}
	return jobRights.line("rights", strings.Join(names, ", "), "drops", "--cap-drop "+strings.Join(names, " --cap-drop "))
}

// Addresses of documentation ranges (RFC 5737), where nobody is.
var (
	nowhereTCP = netip.MustParseAddrPort("192.0.2.1:443")
	nowhereUDP = netip.MustParseAddrPort("192.0.2.1:9")
)

func (d *doctor) tcpEffect() doctorLine {
	err := d.dial(nowhereTCP)
	switch address := nowhereTCP.String(); {
	case err == nil, refusedAtOnce(err):
		return tcpTaken.line("address", address)
	case silent(err):
		return tcpSilent.line("address", address)
	default:
		return tcpUnrouted.line("address", address, "why", err.Error())
	}
}

func (d *doctor) udpEffect() doctorLine {
	err := d.send(nowhereUDP)
	switch address := nowhereUDP.String(); {
	case refusedAtOnce(err):
		return udpRefused.line("address", address)
	case err == nil, silent(err):
		return udpSilent.line("address", address)
	default:
		return udpUnrouted.line("address", address, "why", err.Error())
	}
}

// refusedAtOnce reports whether a packet was refused where it was sent, or by
// the gateway.
func refusedAtOnce(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPERM)
}

func silent(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

func (d *doctor) route() doctorLine {
	devices := d.machine.DefaultRoutes()
	if len(devices) == 0 {
		return routeNone.line()
	}
	slices.Sort(devices)
	return routeThere.line("devices", strings.Join(slices.Compact(devices), ", "))
}
