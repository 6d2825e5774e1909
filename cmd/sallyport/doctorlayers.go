package main

import (
	"slices"
	"strings"
)

// The states of a layer.
const (
	stateOK   = "ok"
	stateFail = "fail"
	stateSkip = "skip"
)

// A finding is one line that doctor can print. Words in braces are filled in.
type finding struct{ state, text, mend string }

// line is the finding with its words, given in pairs of name and value.
func (f *finding) line(words ...string) doctorLine {
	var pairs []string
	for n := 0; n+1 < len(words); n += 2 {
		pairs = append(pairs, "{"+words[n]+"}", words[n+1])
	}
	fill := strings.NewReplacer(pairs...)
	return doctorLine{State: f.state, Text: fill.Replace(f.text), Mend: fill.Replace(f.mend)}
}

// A layer is one thing that must hold, where it is looked at, and all that can
// be found of it.
type layer struct {
	name     string
	about    string // what it is for, and where it is looked at
	applies  func(*doctor) bool
	check    func(*doctor) doctorLine
	findings []*finding
}

// What can be found, layer by layer.
var (
	adminHeld    = finding{stateOK, "NET_ADMIN is held", ""}
	adminForeign = finding{stateFail, "NET_ADMIN is held in a user namespace to which this network does not belong",
		"run doctor and the firewall outside of that user namespace"}
	adminMissing = finding{stateFail, "NET_ADMIN is not held: the firewall can be neither applied nor compared from here",
		"run it where the firewall is applied: as root, with --cap-add NET_ADMIN or capabilities: {add: [NET_ADMIN]}"}
	adminUnread = finding{stateSkip, "not known: {why}", ""}

	kernelTakes  = finding{stateOK, "the kernel takes every kind of rule of a {mode}", ""}
	kernelLacks  = finding{stateFail, "the kernel lacks {parts}", "on the host: modprobe the modules named, or a kernel that was built with them"}
	kernelUntold = finding{stateSkip, "not tried: {why}", ""}

	tablesInPlace  = finding{stateOK, "in place: the kernel's tables are those of this {mode}", ""}
	tablesDiffer   = finding{stateFail, "not in place: {differences}", "sallyport firewall apply --mode {mode} with the configuration and flags given here, or run with --firewall {mode}"}
	tablesUnread   = finding{stateSkip, "not read: {why}", ""}
	tablesExplicit = finding{stateSkip, "explicit mode has none: the network around the job must leave no other way", ""}

	othersNone   = finding{stateOK, "no other table comes before ours", ""}
	othersAfter  = finding{stateOK, "none comes before ours; after it: {chains}", ""}
	othersClosed = finding{stateOK, "none comes before ours; {chains} drops what no rule of it lets in, and must let in what is redirected to us", ""}
	othersBefore = finding{stateFail, "{chains} may send packets elsewhere before ours takes them", "give that chain a priority above -110, or take it away"}
	othersUnread = finding{stateSkip, "not read: {why}", ""}

	forwardingOn   = finding{stateOK, "on: the firewall alone keeps what is not redirected from being routed", ""}
	forwardingIdle = finding{stateOK, "off: no pool needs it, and nothing is routed even without the firewall", ""}
	forwardingOff  = finding{stateFail, "{settings} is 0, and a pool is in audit: its UDP, ICMP and other protocols are to pass, and are lost",
		"once the firewall is in place: sysctl -w {sets}"}
	forwardingUnread = finding{stateSkip, "net.ipv4.ip_forward cannot be read", ""}

	pathsChecked = finding{stateOK, "rp_filter loses no answers; the firewall's chain check looks at the sources of runners itself", ""}
	pathsStrict  = finding{stateFail, "rp_filter is strict on {strict}, and there are default routes by {routes}: answers that come by another way are lost",
		"sysctl -w net.ipv4.conf.all.rp_filter=2"}
	pathsUnread = finding{stateSkip, "net.ipv4.conf.all.rp_filter cannot be read", ""}

	portsApart = finding{stateOK, "no two runners are on one bridge without isolation", ""}
	portsOpen  = finding{stateFail, "runners reach each other past this gateway through {ports} of {bridge}",
		"bridge link set dev {first} isolated on, and so for each; or a subnet and an interface for each runner"}
	portsNone     = finding{stateSkip, "no pool names an interface that is here; look at where the runners are connected", ""}
	portsFiltered = finding{stateOK, "no two runners are on one bridge without isolation; bridge-nf-call-iptables is on, so frames between ports are asked of the tables, too", ""}

	resolverNamed  = finding{stateOK, "dns.upstreams names the resolvers; resolv.conf is not asked", ""}
	resolverSystem = finding{stateOK, "the upstreams are those of resolv.conf: {servers}", ""}
	resolverDocker = finding{stateFail, "Docker's own resolver asks outside from inside this namespace as root, so questions would come back to us",
		"name dns.upstreams by address, or use the default bridge network"}
	resolverNone     = finding{stateFail, "resolv.conf names no resolver", "write one there: nameserver ADDRESS"}
	resolverTaken    = finding{stateOK, "questions go to {servers}; wherever that is, the firewall takes them while it is in place", ""}
	resolverUnknown  = finding{stateSkip, "questions go to {servers}: that must be Sallyport, which cannot be seen from here", ""}
	resolverInFront  = finding{stateSkip, "Docker's own resolver, 127.0.0.11, stands before whoever --dns names, which cannot be seen from here: it must be Sallyport", ""}
	resolverNotRead  = finding{stateSkip, "not read: {why}", ""}
	sixNone          = finding{stateOK, "no address and no default route of IPv6", ""}
	sixServed        = finding{stateOK, "on {devices}, and every pool has its listeners", ""}
	sixClosed        = finding{stateOK, "on {devices}, but pool {pool} has no {listeners} listener for it: IPv6 is closed, and clients fall back to IPv4", ""}
	sixHalf          = finding{stateFail, "on {devices}, but loopback has no ::1, to which connections are redirected", "sysctl -w net.ipv6.conf.lo.disable_ipv6=0, or net.ipv6.conf.all.disable_ipv6=1 if IPv6 is not wanted"}
	translationNone  = finding{stateOK, "no rule that can be read translates addresses on the runners' side", ""}
	translationThere = finding{stateFail, "{chain} translates sources on {devices}, the runners' side: Sallyport cannot tell them apart",
		"translate on the way out only: name the uplink in that rule (oifname)"}
	translationUnread = finding{stateSkip, "not read: {why}", ""}

	jobBound  = finding{stateOK, "no capability within the job's reach leads past the firewall", ""}
	jobApart  = finding{stateOK, "its capabilities count only in a user namespace of its own, not in this network", ""}
	jobRights = finding{stateFail, "the job can come to {rights}, which leads past what holds it",
		"start it without: {drops}, and with --security-opt no-new-privileges (in Kubernetes: capabilities.drop, allowPrivilegeEscalation: false)"}
	jobMachine = finding{stateSkip, "a gateway stands outside: root on this machine leads no further", ""}
	jobUnread  = finding{stateSkip, "not known: {why}", ""}

	tcpTaken    = finding{stateOK, "a connection to {address} was answered at once: it was taken over or refused", ""}
	tcpSilent   = finding{stateFail, "a connection to {address} was not answered: nobody takes it over", "look at the daemon's side: sallyport doctor --from daemon there"}
	tcpUnrouted = finding{stateSkip, "there is no way to {address} from here: {why}", ""}

	udpRefused = finding{stateOK, "a datagram to {address} was refused at once", ""}
	udpSilent  = finding{stateFail, "a datagram to {address} was not refused within a second: it left, or clients such as QUIC will hang (a pool in audit lets it pass)",
		"look at the daemon's side: sallyport doctor --from daemon there; on a gateway also at forwarding"}
	udpUnrouted = finding{stateSkip, "there is no way to {address} from here: {why}", ""}

	routeNone  = finding{stateOK, "there is no default route: the job reaches its own network only", ""}
	routeThere = finding{stateSkip, "a default route leads out by {devices}; whether the network shuts it cannot be seen from here: curl --noproxy '*' to anywhere must fail", ""}
)

// layers are all, in the order in which they build on each other.
func layers() []layer { return slices.Concat(ruleLayers(), gatewayLayers(), nameLayers(), jobLayers()) }

// ruleLayers are about the rules in the kernel.
func ruleLayers() []layer {
	return []layer{
		{
			"capability", "Applying and comparing the firewall takes NET_ADMIN. From the daemon's side of a sidecar or gateway.",
			(*doctor).hasPlan, (*doctor).capability, []*finding{&adminHeld, &adminMissing, &adminForeign, &adminUnread},
		},
		{
			"kernel", "What the rules are made of is offered to the kernel and never committed. From the daemon's side of a sidecar or gateway.",
			(*doctor).hasPlan, (*doctor).kernel, []*finding{&kernelTakes, &kernelLacks, &kernelUntold},
		},
		{
			"firewall", "The kernel's tables, compared with those of the configuration, rule by rule. From the daemon's side.",
			(*doctor).daemon, (*doctor).tables, []*finding{&tablesInPlace, &tablesDiffer, &tablesUnread, &tablesExplicit},
		},
		{
			"tables", "Other nftables tables, such as Docker's and firewalld's, may come after ours, not before. From the daemon's side of a sidecar or gateway.",
			(*doctor).hasPlan, (*doctor).otherTables, []*finding{&othersNone, &othersAfter, &othersClosed, &othersBefore, &othersUnread},
		},
	}
}

// gatewayLayers are about what a gateway's machine does beside our rules.
func gatewayLayers() []layer {
	return []layer{
		{
			"forwarding", "TCP and DNS are redirected and need none, and all else is refused, but for pools in audit, whose other protocols are routed. On a gateway.",
			(*doctor).gateway, (*doctor).forwarding, []*finding{&forwardingOn, &forwardingIdle, &forwardingOff, &forwardingUnread},
		},
		{
			"rp_filter", "The kernel's own check of sources must not lose answers. On a gateway.",
			(*doctor).gateway, (*doctor).reversePath, []*finding{&pathsChecked, &pathsStrict, &pathsUnread},
		},
		{
			"isolation", "Runners on one bridge reach each other without passing the gateway, unless their ports are isolated. On a gateway.",
			(*doctor).gateway, (*doctor).isolation, []*finding{&portsApart, &portsFiltered, &portsOpen, &portsNone},
		},
		{
			"translation", "Sallyport must see each runner's own address. On a gateway; rules behind jumps, and other machines between, are not seen.",
			(*doctor).gateway, (*doctor).translation, []*finding{&translationNone, &translationThere, &translationUnread},
		},
	}
}

// nameLayers are about questions, and about the family that is forgotten.
func nameLayers() []layer {
	return []layer{
		{
			"resolver", "Where questions go: Sallyport's own, or from a job the job's.",
			(*doctor).always, (*doctor).resolver, []*finding{
				&resolverNamed, &resolverSystem, &resolverDocker, &resolverNone, &resolverTaken, &resolverUnknown, &resolverInFront, &resolverNotRead,
			},
		},
		{
			"ipv6", "IPv6 is served like IPv4, or closed. From the daemon's side of a sidecar or gateway.",
			(*doctor).hasPlan, (*doctor).ipv6, []*finding{&sixNone, &sixServed, &sixClosed, &sixHalf},
		},
	}
}

// jobLayers are what only a job can see.
func jobLayers() []layer {
	return []layer{
		{
			"job", "Capabilities with which a job gets past the firewall (CapBnd and no_new_privs of doctor's own process). From a job.",
			(*doctor).fromJob, (*doctor).rights, []*finding{&jobBound, &jobApart, &jobRights, &jobMachine, &jobUnread},
		},
		{
			"tcp", "What becomes of a connection to an address of a documentation range; it may show as an event. From a job behind a sidecar or gateway.",
			(*doctor).jobTaken, (*doctor).tcpEffect, []*finding{&tcpTaken, &tcpSilent, &tcpUnrouted},
		},
		{
			"udp", "The same for a datagram. From a job behind a sidecar or gateway.",
			(*doctor).jobTaken, (*doctor).udpEffect, []*finding{&udpRefused, &udpSilent, &udpUnrouted},
		},
		{
			"route", "In explicit mode the network must leave no other way. From a job.",
			(*doctor).jobExplicit, (*doctor).route, []*finding{&routeNone, &routeThere},
		},
	}
}
