package firewall_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"sallyport/proxy/firewall"
)

var update = flag.Bool("update", false, "write the golden files anew")

// plans are those of the golden files.
func plans() map[string]*firewall.Plan {
	metadata := []netip.Addr{netip.MustParseAddr("169.254.169.254"), netip.MustParseAddr("168.63.129.16"), netip.MustParseAddr("fd00:ec2::254")}
	sidecar := firewall.Plan{
		Mode: firewall.Sidecar, Own: firewall.Identity{UID: 65532}, Private: []uint16{9180, 9181},
		Ways:      []firewall.Way{{TCP: firewall.Ports{V4: 3129, V6: 3129}, DNS: firewall.Ports{V4: 5300, V6: 5300}}},
		Resolvers: []netip.Addr{netip.MustParseAddr("127.0.0.11"), netip.MustParseAddr("127.0.0.53")},
		Devices:   []string{"eth0", "eth1"}, Metadata: metadata, LogGroup: firewall.DefaultLogGroup,
	}
	audit := sidecar
	audit.Ways = []firewall.Way{{TCP: firewall.Ports{V4: 3129}, DNS: firewall.Ports{V4: 5300}, PassesOther: true}}
	audit.Devices = []string{"eth0"}
	bare := firewall.Plan{Mode: firewall.Sidecar, Own: firewall.Identity{UID: 1000}, LogGroup: 1, Ways: []firewall.Way{{}}}
	gateway := firewall.Plan{
		Mode: firewall.Gateway, Metadata: metadata, LogGroup: firewall.DefaultLogGroup, DHCP: true, NTP: true,
		Ways: []firewall.Way{
			{
				Pool: "build", Interfaces: []string{"br-build"}, Sources: prefixes("10.20.0.0/24", "fd00:20::/64"),
				TCP: firewall.Ports{V4: 3129, V6: 3129}, DNS: firewall.Ports{V4: 53, V6: 53}, Explicit: []uint16{3128},
			},
			{
				Pool: "vms", Interfaces: []string{"br-a", "br-b"},
				TCP: firewall.Ports{V4: 3129, V6: 3129}, DNS: firewall.Ports{V4: 53, V6: 53},
			},
			{
				Pool: "wide audit", Sources: prefixes("10.0.0.0/8", "192.168.4.0/22"), PassesOther: true,
				TCP: firewall.Ports{V4: 4129}, DNS: firewall.Ports{V4: 5353},
			},
		},
	}
	return map[string]*firewall.Plan{"sidecar": &sidecar, "sidecar-audit": &audit, "sidecar-closed": &bare, "gateway": &gateway}
}

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range texts {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

func TestTextIsTheGoldenFile(t *testing.T) {
	for name, plan := range plans() {
		t.Run(name, func(t *testing.T) {
			if err := plan.Validate(); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", name+".nft")
			got := firewall.Text(plan)
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil || got != string(want) {
				t.Errorf("%v; the text is another; look at it, then go test ./proxy/firewall -update\n%s", err, got)
			}
		})
	}
}

// inNamespace runs the test in a network namespace of its own, with the
// devices that the plans name.
func inNamespace(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("SALLYPORT_CI") == "1" {
			t.Fatal("CI must have root")
		}
		t.Skip("SKIPPED on this machine: needs root")
	}
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	shell(t, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
}

// worlds numbers namespaces.
func worlds() int64 { return worldCount.Add(1) }

var worldCount atomic.Int64

func shell(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func needNft(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		if os.Getenv("SALLYPORT_CI") == "1" {
			t.Fatal("CI must have nft")
		}
		t.Skip("SKIPPED on this machine: needs the program nft")
	}
}

func TestWhatIsAppliedIsWhatIsWanted(t *testing.T) {
	for name, plan := range plans() {
		t.Run(name, func(t *testing.T) {
			inNamespace(t)
			if found, err := firewall.Compare(plan); err != nil || len(found) == 0 {
				t.Errorf("before: %v, %v; want differences", found, err)
			}
			for range 2 {
				if err := firewall.Apply(plan); err != nil {
					t.Fatal(err)
				}
				if found, err := firewall.Compare(plan); err != nil || found != nil {
					t.Errorf("Compare: %q, %v", found, err)
				}
			}
			for range 2 {
				if err := firewall.Remove(); err != nil {
					t.Fatal(err)
				}
			}
			if found, err := firewall.Compare(plan); err != nil || len(found) == 0 {
				t.Errorf("after Remove: %v, %v; want differences", found, err)
			}
		})
	}
}

func TestTextLoadsWhatApplyLoads(t *testing.T) {
	for name, plan := range plans() {
		t.Run(name, func(t *testing.T) {
			needNft(t)
			inNamespace(t)
			if err := firewall.Apply(plan); err != nil {
				t.Fatal(err)
			}
			applied := ruleset(t)
			file := filepath.Join(t.TempDir(), "rules.nft")
			if err := os.WriteFile(file, []byte(firewall.Text(plan)), 0o644); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				shell(t, "nft", "-f", file)
				if loaded := ruleset(t); !reflect.DeepEqual(applied, loaded) {
					for i := range min(len(applied), len(loaded)) {
						if !reflect.DeepEqual(applied[i], loaded[i]) {
							t.Errorf("applied %v\nloaded  %v", applied[i], loaded[i])
						}
					}
					t.Errorf("applied %d objects, loaded %d", len(applied), len(loaded))
				}
				if found, err := firewall.Compare(plan); err != nil || found != nil {
					t.Errorf("Compare: %q, %v", found, err)
				}
			}
		})
	}
}

// ruleset is the kernel's, without handles, which number objects as they come.
func ruleset(t *testing.T) []any {
	t.Helper()
	var out struct{ Nftables []any }
	if err := json.Unmarshal([]byte(shell(t, "nft", "-j", "list", "ruleset")), &out); err != nil {
		t.Fatal(err)
	}
	for _, object := range out.Nftables {
		for _, fields := range object.(map[string]any) {
			delete(fields.(map[string]any), "handle")
		}
	}
	return out.Nftables
}

// Every rule that is taken away by itself must be told, and every chain.
func TestEveryDifferenceIsTold(t *testing.T) {
	all := plans()
	for _, name := range []string{"sidecar-audit", "gateway"} {
		plan := all[name]
		t.Run(name, func(t *testing.T) {
			needNft(t)
			inNamespace(t)
			apply := func() {
				if err := firewall.Apply(plan); err != nil {
					t.Fatal(err)
				}
			}
			told := func(what string) {
				t.Helper()
				if found, err := firewall.Compare(plan); err != nil || len(found) == 0 {
					t.Errorf("%s: %v, %v", what, found, err)
				}
			}
			apply()
			type object struct {
				family, table, chain, name string
				handle                     float64
			}
			list := func(kind string) (out []object) {
				var all struct{ Nftables []map[string]map[string]any }
				if err := json.Unmarshal([]byte(shell(t, "nft", "-j", "list", "ruleset")), &all); err != nil {
					t.Fatal(err)
				}
				text := func(v any) string { s, _ := v.(string); return s }
				for _, o := range all.Nftables {
					if f, ok := o[kind]; ok {
						handle, _ := f["handle"].(float64)
						out = append(out, object{text(f["family"]), text(f["table"]), text(f["chain"]), text(f["name"]), handle})
					}
				}
				return out
			}
			for n := range list("rule") {
				apply()
				r := list("rule")[n]
				shell(t, "nft", "delete", "rule", r.family, r.table, r.chain, "handle", fmt.Sprint(int(r.handle)))
				told(fmt.Sprintf("without rule %d of %s", n, r.chain))
			}
			for _, c := range list("chain") {
				apply()
				if strings.Contains(shell(t, "nft", "list", "chain", c.family, c.table, c.name), "policy drop") {
					shell(t, "nft", "chain", c.family, c.table, c.name, "{ policy accept; }")
					told("policy of " + c.name)
					apply()
				}
				shell(t, "nft", "insert", "rule", c.family, c.table, c.name, "accept")
				told("accept before " + c.name)
				apply()
				shell(t, "nft", "add", "rule", c.family, c.table, c.name, "accept")
				told("accept behind " + c.name)
				apply()
				if strings.Contains(shell(t, "nft", "list", "chain", c.family, c.table, c.name), "counter") {
					shell(t, "nft", "flush", "chain", c.family, c.table, c.name)
					told("flushed " + c.name)
				}
			}
			for _, family := range []string{"inet", "netdev"} {
				apply()
				if strings.Contains(shell(t, "nft", "list", "tables"), family) {
					shell(t, "nft", "delete", "table", family, "sallyport")
					told("without table " + family)
					apply()
					shell(t, "nft", "add table "+family+" sallyport { flags dormant; }")
					told("dormant table " + family)
				}
				apply()
				shell(t, "nft", "add", "table", family, "sallyport")
				shell(t, "nft", "add", "chain", family, "sallyport", "foreign")
				told("foreign chain in " + family)
			}
			apply()
			for _, s := range list("set") {
				// A constant set cannot be changed while a rule uses it.
				if err := exec.Command("nft", "flush", "set", s.family, s.table, s.name).Run(); err == nil {
					told("flushed set " + s.name)
					apply()
				}
			}
		})
	}
}
