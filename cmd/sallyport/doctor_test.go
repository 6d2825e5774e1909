package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"sallyport/proxy/firewall"
)

var update = flag.Bool("update", false, "write docs/doctor.md anew")

// Files of a machine, as fixtures.
const (
	rootStatus  = "CapPrm:\t3000\nCapEff:\t1000\nCapBnd:\t3000\nNoNewPrivs:\t0\n"
	boundStatus = "CapPrm:\t0\nCapEff:\t0\nCapBnd:\tc0\nNoNewPrivs:\t0\n" // SETUID and SETGID
	freeStatus  = "CapPrm:\t0\nCapEff:\t0\nCapBnd:\ta80425fb\nNoNewPrivs:\t1\n"
	route       = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n"
	route0      = "eth0\t00000000\t0100000A\t3\t0\t0\t0\t00000000\n"
	route1      = "eth1\t00000000\t0100000A\t3\t0\t0\t9\t00000000\n"
	six0        = "20010db8000000000000000000000001 03 40 00 80     eth0\n"
	sixLoopback = "00000000000000000000000000000001 01 80 10 80       lo\n"
)

// A tree holds files by their paths.
type tree map[string]string

// TestDoctorLayers has one row or more for every line that doctor can print.
func TestDoctorLayers(t *testing.T) {
	both := firewall.Ports{V4: 3129, V6: 3129}
	served := &firewall.Plan{Ways: []firewall.Way{{Pool: "build", Interfaces: []string{"br0"}, TCP: both, DNS: both}}}
	half := &firewall.Plan{Ways: []firewall.Way{{Pool: "build", Interfaces: []string{"br0"}, TCP: both}}}
	bridge := func(ports ...string) tree {
		files := tree{"sys/class/net/br0/bridge/x": ""}
		for _, port := range ports {
			name, isolated, _ := strings.Cut(port, "=")
			files["sys/class/net/br0/brif/"+name], files["sys/class/net/"+name+"/brport/isolated"] = "", isolated
		}
		return files
	}
	with := func(files tree, path, text string) tree {
		files[path] = text
		return files
	}
	dnsAt := func(addrs ...string) tree {
		return tree{"etc/resolv.conf": "nameserver " + strings.Join(addrs, "\nnameserver ") + "\n"}
	}
	tables := func(chains ...firewall.OtherChain) func(*doctor) {
		return func(d *doctor) { d.chains = giving(chains, nil) }
	}
	refused := func(d *doctor) {
		d.compare, d.lacks = givingFor[string](nil, fs.ErrPermission), givingFor[string](nil, fs.ErrPermission)
		d.chains = giving[firewall.OtherChain](nil, fs.ErrPermission)
	}
	job := func(d *doctor) { d.job = true }
	audit := func(d *doctor) { d.plan = &firewall.Plan{Ways: []firewall.Way{{PassesOther: true}}} }
	const sidecar, gateway = firewall.Sidecar, firewall.Gateway
	tests := []struct {
		rule  string
		layer string
		mode  firewall.Mode
		files tree
		set   func(*doctor)
		want  *finding
		says  string // must be in the line or its mend
	}{
		{"root has it", "capability", sidecar, tree{"proc/self/status": rootStatus}, nil, &adminHeld, ""},
		{"another has not", "capability", sidecar, tree{"proc/self/status": freeStatus}, nil, &adminMissing, "--cap-add NET_ADMIN"},
		{"root of another user namespace", "capability", gateway, tree{"proc/self/status": rootStatus}, func(d *doctor) { d.foreign = func() bool { return true } }, &adminForeign, ""},
		{"no proc", "capability", gateway, nil, nil, &adminUnread, ""},

		{"a kernel with all", "kernel", gateway, nil, nil, &kernelTakes, "gateway"},
		{"a kernel without", "kernel", sidecar, nil, func(d *doctor) { d.lacks = givingFor([]string{"egress hooks", "fib"}, nil) }, &kernelLacks, "egress hooks; fib"},
		{"no right to ask", "kernel", sidecar, nil, refused, &kernelUntold, "takes NET_ADMIN"},

		{"as wanted", "firewall", sidecar, nil, nil, &tablesInPlace, ""},
		{"not as wanted", "firewall", gateway, nil, func(d *doctor) { d.compare = givingFor([]string{"a", "b", "c", "d", "e"}, nil) }, &tablesDiffer, "a; b; c; and 2 more"},
		{"no right to read", "firewall", gateway, nil, refused, &tablesUnread, "takes NET_ADMIN"},
		{"nothing to compare", "firewall", "", nil, nil, &tablesExplicit, ""},

		{"nobody else", "tables", sidecar, nil, nil, &othersNone, ""},
		{"Docker's come after", "tables", sidecar, nil, tables(chain("nat", "output", -100)), &othersAfter, "priority -100"},
		{"what looks at other hooks says nothing", "tables", sidecar, nil, tables(chain("nat", "prerouting", -200)), &othersNone, ""},
		{"a redirect at our own priority may come first", "tables", sidecar, nil, tables(chain("nat", "output", -110)), &othersBefore, "priority -110"},
		{"a redirect ahead of a gateway's", "tables", gateway, nil, tables(chain("nat", "prerouting", -150)), &othersBefore, "prerouting"},
		{"a filter ahead only drops", "tables", gateway, nil, tables(chain("filter", "prerouting", -300)), &othersAfter, ""},
		{"an input that drops must let ours in", "tables", gateway, nil, tables(firewall.OtherChain{Family: "inet", Table: "firewalld", Name: "in", Kind: "filter", Hook: "input", Drops: true}), &othersClosed, "firewalld"},
		{"no right to read", "tables", gateway, nil, refused, &othersUnread, ""},

		{"on", "forwarding", gateway, tree{"proc/sys/net/ipv4/ip_forward": "1\n", "proc/sys/net/ipv6/conf/all/forwarding": "1\n", "proc/net/if_inet6": six0}, nil, &forwardingOn, ""},
		{"off, and no pool in audit", "forwarding", gateway, tree{"proc/sys/net/ipv4/ip_forward": "0\n"}, nil, &forwardingIdle, ""},
		{"off", "forwarding", gateway, tree{"proc/sys/net/ipv4/ip_forward": "0\n"}, audit, &forwardingOff, "sysctl -w net.ipv4.ip_forward=1"},
		{"off for the IPv6 that is there", "forwarding", gateway, tree{"proc/sys/net/ipv4/ip_forward": "1\n", "proc/sys/net/ipv6/conf/all/forwarding": "0\n", "proc/net/if_inet6": six0}, audit, &forwardingOff, "sysctl -w net.ipv6.conf.all.forwarding=1"},
		{"off for IPv6, of which there is none", "forwarding", gateway, tree{"proc/sys/net/ipv4/ip_forward": "1\n", "proc/sys/net/ipv6/conf/all/forwarding": "0\n"}, nil, &forwardingOn, ""},
		{"no proc", "forwarding", gateway, nil, nil, &forwardingUnread, ""},

		{"strict, with one way out", "rp_filter", gateway, tree{"proc/sys/net/ipv4/conf/all/rp_filter": "1\n", "proc/net/route": route + route0}, nil, &pathsChecked, ""},
		{"strict, with two", "rp_filter", gateway, tree{"proc/sys/net/ipv4/conf/all/rp_filter": "0\n", "proc/sys/net/ipv4/conf/eth1/rp_filter": "1\n", "proc/net/route": route + route0 + route1}, nil, &pathsStrict, "strict on eth1"},
		{"loose, with two", "rp_filter", gateway, tree{"proc/sys/net/ipv4/conf/all/rp_filter": "2\n", "proc/sys/net/ipv4/conf/eth1/rp_filter": "1\n", "proc/net/route": route + route0 + route1}, nil, &pathsChecked, ""},
		{"no proc", "rp_filter", gateway, nil, nil, &pathsUnread, ""},

		{"isolated ports", "isolation", gateway, bridge("a=1\n", "b=1\n"), nil, &portsApart, ""},
		{"isolated ports and an uplink", "isolation", gateway, bridge("a=1\n", "b=1\n", "up=0\n"), nil, &portsApart, ""},
		{"one runner", "isolation", gateway, bridge("a=0\n"), nil, &portsApart, ""},
		{"two ports that are open", "isolation", gateway, bridge("a=0\n", "b=1\n", "c=0\n"), nil, &portsOpen, "bridge link set dev a isolated on"},
		{"an interface for each runner", "isolation", gateway, tree{"proc/sys/net/ipv4/conf/br0/forwarding": "0\n"}, nil, &portsApart, ""},
		{"frames go through the tables", "isolation", gateway, with(bridge("a=1\n", "b=1\n"), "proc/sys/net/bridge/bridge-nf-call-iptables", "1\n"), nil, &portsFiltered, ""},
		{"not there yet", "isolation", gateway, nil, nil, &portsNone, ""},

		{"the uplink is translated", "translation", gateway, nil, tables(firewall.OtherChain{Translates: []string{"eth0"}}), &translationNone, ""},
		{"the runners are", "translation", gateway, nil, tables(firewall.OtherChain{Table: "nat", Translates: []string{"eth0", "br0"}}), &translationThere, "on br0"},
		{"no right to read", "translation", gateway, nil, refused, &translationUnread, ""},

		{"upstreams by address", "resolver", sidecar, dnsAt("127.0.0.11"), nil, &resolverNamed, ""},
		{"Docker's in a sidecar", "resolver", sidecar, dnsAt("127.0.0.11"), system, &resolverDocker, "dns.upstreams by address"},
		{"Docker's beside an explicit proxy", "resolver", "", dnsAt("127.0.0.11"), system, &resolverSystem, ""},
		{"systemd-resolved", "resolver", sidecar, dnsAt("127.0.0.53"), system, &resolverSystem, "127.0.0.53"},
		{"none", "resolver", gateway, tree{"etc/resolv.conf": "search x\n"}, system, &resolverNone, ""},
		{"no file", "resolver", gateway, nil, system, &resolverNotRead, "resolv.conf"},
		{"a job behind the firewall", "resolver", sidecar, dnsAt("127.0.0.11"), job, &resolverTaken, "127.0.0.11"},
		{"a job with Docker's", "resolver", "", dnsAt("127.0.0.11"), job, &resolverInFront, ""},
		{"a job with another", "resolver", "", dnsAt("10.0.0.2"), job, &resolverUnknown, "10.0.0.2"},

		{"none", "ipv6", sidecar, tree{"proc/net/if_inet6": sixLoopback}, nil, &sixNone, ""},
		{"served", "ipv6", sidecar, tree{"proc/net/if_inet6": sixLoopback + six0}, nil, &sixServed, "eth0"},
		{"without ::1", "ipv6", sidecar, tree{"proc/net/if_inet6": six0}, nil, &sixHalf, "disable_ipv6"},
		{"closed", "ipv6", gateway, tree{"proc/net/if_inet6": six0}, func(d *doctor) { d.plan = half }, &sixClosed, "no dns listener"},

		{"nothing within reach", "job", sidecar, tree{"proc/self/status": freeStatus}, job, &jobBound, ""},
		{"another user within reach", "job", sidecar, tree{"proc/self/status": boundStatus}, func(d *doctor) { d.job, d.byUser = true, true }, &jobRights, "--cap-drop SETGID --cap-drop SETUID"},
		{"another user, with a cgroup", "job", sidecar, tree{"proc/self/status": boundStatus}, job, &jobBound, ""},
		{"another user, where none is let out", "job", "", tree{"proc/self/status": boundStatus}, func(d *doctor) { d.job, d.byUser = true, true }, &jobBound, ""},
		{"frames and tables", "job", sidecar, tree{"proc/self/status": rootStatus}, job, &jobRights, "NET_ADMIN, NET_RAW"},
		{"in a user namespace", "job", sidecar, tree{"proc/self/status": rootStatus}, func(d *doctor) { d.job, d.foreign = true, func() bool { return true } }, &jobApart, ""},
		{"no proc", "job", sidecar, nil, job, &jobUnread, ""},
		{"root of a runner's machine", "job", gateway, tree{"proc/self/status": rootStatus}, job, &jobMachine, ""},

		{"answered", "tcp", sidecar, nil, effect(nil), &tcpTaken, "192.0.2.1:443"},
		{"reset", "tcp", sidecar, nil, effect(syscall.ECONNREFUSED), &tcpTaken, ""},
		{"silence", "tcp", sidecar, nil, effect(os.ErrDeadlineExceeded), &tcpSilent, ""},
		{"no route", "tcp", gateway, nil, effect(syscall.ENETUNREACH), &tcpUnrouted, "unreachable"},
		{"refused", "udp", sidecar, nil, effect(syscall.ECONNREFUSED), &udpRefused, ""},
		{"refused where it is sent", "udp", sidecar, nil, effect(syscall.EPERM), &udpRefused, ""},
		{"silence", "udp", sidecar, nil, effect(os.ErrDeadlineExceeded), &udpSilent, ""},
		{"an answer", "udp", sidecar, nil, effect(nil), &udpSilent, ""},
		{"no route", "udp", gateway, nil, effect(syscall.EHOSTUNREACH), &udpUnrouted, ""},

		{"an internal network", "route", "", nil, job, &routeNone, ""},
		{"a way out", "route", "", tree{"proc/net/route": route + route0}, job, &routeThere, "eth0"},
	}
	met := map[*finding]bool{}
	for _, test := range tests {
		t.Run(test.layer+": "+test.rule, func(t *testing.T) {
			d := &doctor{
				mode: test.mode, plan: served, machine: firewall.Machine{Root: planted(t, test.files)},
				compare: givingFor[string](nil, nil), lacks: givingFor[string](nil, nil), chains: giving[firewall.OtherChain](nil, nil),
				foreign: func() bool { return false },
			}
			effect(nil)(d)
			d.job = false
			if test.set != nil {
				test.set(d)
			}
			met[test.want] = true
			lines := d.examine()
			n := slices.IndexFunc(lines, func(l doctorLine) bool { return l.Layer == test.layer })
			if n < 0 {
				t.Fatalf("nobody looked: %v", lines)
			}
			front, _, _ := strings.Cut(test.want.text, "{")
			got := lines[n]
			if got.State != test.want.state || !strings.HasPrefix(got.Text, front) || !strings.Contains(got.Text+got.Mend, test.says) || strings.Contains(got.Text+got.Mend, "{") && test.want != &adminMissing && test.want != &tablesDiffer {
				t.Errorf("%+v", got)
			}
		})
	}
	for _, l := range layers() {
		for _, f := range l.findings {
			if !met[f] {
				t.Errorf("no row is about %s: %s", l.name, f.text)
			}
		}
	}
}

func chain(kind, hook string, priority int32) firewall.OtherChain {
	return firewall.OtherChain{Family: "ip", Table: "nat", Name: "c", Kind: kind, Hook: hook, Priority: priority}
}

func system(d *doctor) { d.system = true }

// effect makes whatever is sent from a job end in one way.
func effect(err error) func(*doctor) {
	return func(d *doctor) {
		d.job, d.dial, d.send = true, func(netip.AddrPort) error { return err }, func(netip.AddrPort) error { return err }
	}
}

func giving[V any](list []V, err error) func() ([]V, error) {
	return func() ([]V, error) { return list, err }
}

func givingFor[V any](list []V, err error) func(*firewall.Plan) ([]V, error) {
	return func(*firewall.Plan) ([]V, error) { return list, err }
}

// planted is a directory with the files of a tree.
func planted(t *testing.T, files tree) string {
	t.Helper()
	root := t.TempDir()
	for path, text := range files {
		path = filepath.Join(root, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// TestDoctorText holds colours off what is no terminal, and steering off what is.
func TestDoctorText(t *testing.T) {
	lines := []doctorLine{{"kernel", stateOK, "fine", ""}, {"tables", stateFail, "a\x1b[2Jb", "mend it"}}
	want := "OK    kernel       fine\nFAIL  tables       a?[2Jb\n                   mend: mend it\n1 fine, 1 failed, 0 skipped\n"
	if got := doctorText(lines, false); got != want {
		t.Errorf("got\n%s", got)
	}
	if got := doctorText(lines, true); !strings.HasPrefix(got, "\x1b[32mOK  \x1b[0m  kernel") || strings.Contains(got, "\x1b[2J") {
		t.Errorf("got\n%q", got)
	}
	terminal, err := os.OpenFile("/dev/null", os.O_WRONLY, 0) // a device, as a terminal is
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	if !coloured(terminal) || coloured(&strings.Builder{}) {
		t.Error("colours are for terminals, and only for them")
	}
	t.Setenv("NO_COLOR", "1")
	if coloured(terminal) {
		t.Error("NO_COLOR is not honoured")
	}
}

// TestDoctorDocument holds the list in docs/doctor.md against the code.
func TestDoctorDocument(t *testing.T) {
	const path, begin = "../../docs/doctor.md", "<!-- What follows is made from the code: go test ./cmd/sallyport -run Document -update -->\n"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, have, found := strings.Cut(string(text), begin)
	if !found {
		t.Fatal("docs/doctor.md has no place for the list")
	}
	want := documentedLayers()
	if *update {
		if err := os.WriteFile(path, []byte(head+begin+want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if have != want {
		t.Error("docs/doctor.md is not what the code says; go test ./cmd/sallyport -run Document -update")
	}
}

func documentedLayers() string {
	var b strings.Builder
	names := map[string]bool{}
	for _, l := range layers() {
		names[l.name] = true
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| | line | mend |\n|---|---|---|\n", l.name, l.about)
		for _, f := range l.findings {
			fmt.Fprintf(&b, "| %s | %s | %s |\n", strings.ToUpper(f.state), f.text, f.mend)
		}
	}
	if len(slices.Collect(maps.Keys(names))) != len(layers()) {
		panic("two layers have one name")
	}
	return b.String()
}
