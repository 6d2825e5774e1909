package test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// inOwnNetwork gives the test's thread, and the commands it runs, a network
// namespace with nothing in it; the thread ends with the test.
func inOwnNetwork(t *testing.T) {
	t.Helper()
	needRoot(t)
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

// firewallFile writes a configuration with one pool.
func firewallFile(t *testing.T, listen, pool string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sallyport.yaml")
	text := "listen: {" + listen + "}\ndefault_pool: build\npools:\n  build: {" + pool + "allow: [allowed.example]}\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestFirewallCommands goes round: not in place, applied, spoilt, applied
// again, removed.
func TestFirewallCommands(t *testing.T) {
	needProgram(t, "nft")
	for mode, file := range map[string]string{
		"sidecar": firewallFile(t, "transparent: auto", ""),
		"gateway": firewallFile(t, `transparent: "0.0.0.0:3129", dns: "0.0.0.0:53"`, "interfaces: [br-build], "),
	} {
		t.Run(mode, func(t *testing.T) {
			inOwnNetwork(t)
			status := func(what, state string, code int) {
				t.Helper()
				r := command(t, ".", "firewall", "status", "-c", file, "--format", "json")
				var got struct {
					Mode, State, By string
					Faults          []string
				}
				if err := json.Unmarshal([]byte(r.stdout), &got); err != nil {
					t.Fatal(err)
				}
				if r.code != code || got.State != state || got.Mode != mode || (len(got.Faults) == 0) != (code == 0) {
					t.Errorf("%s: %d, %s%s", what, r.code, r.stdout, r.stderr)
				}
			}
			apply := func() {
				t.Helper()
				if r := command(t, ".", "firewall", "apply", "--mode", mode, "-c", file); r.code != 0 {
					t.Fatalf("apply: %d, %s%s", r.code, r.stdout, r.stderr)
				}
			}
			status("before", "not-in-place", 1)
			apply()
			apply()
			status("applied", "in-place", 0)
			for _, spoil := range []string{"flush chain inet sallyport in", "add rule inet sallyport forward accept", "delete table inet sallyport"} {
				if r := commandIn(t, ".", nil, "nft", strings.Fields(spoil)...); r.code != 0 {
					t.Fatal(r.stderr)
				}
				if mode != "sidecar" || !strings.HasPrefix(spoil, "flush") { // without devices that chain is short
					status(spoil, "not-in-place", 1)
				}
				apply()
			}
			printed := command(t, ".", "firewall", "print", "--mode", mode, "-c", file)
			if err := os.WriteFile(file+".nft", []byte(printed.stdout), 0o644); err != nil {
				t.Fatal(err)
			}
			if r := commandIn(t, ".", nil, "nft", "-f", file+".nft"); r.code != 0 {
				t.Fatal(r.stderr)
			}
			status("loaded by nft", "in-place", 0)
			if r := command(t, ".", "firewall", "remove"); r.code != 0 {
				t.Fatal(r.stderr)
			}
			status("removed", "not-in-place", 1)
		})
	}
}

// TestFirewallTellsItsUser is what wrong command lines and missing rights say.
func TestFirewallTellsItsUser(t *testing.T) {
	needProgram(t, "capsh")
	inOwnNetwork(t)
	file := firewallFile(t, "transparent: auto", "")
	explicit := firewallFile(t, "", "")
	for _, c := range []struct {
		does, args, says string
		code             int
	}{
		{"no word", "firewall", "print, apply, status or remove", 2},
		{"a mode that is none", "firewall print --mode bridge -c " + file, `"bridge" is no mode`, 2},
		{"nothing says the mode", "firewall apply -c " + explicit, "say --mode", 2},
		{"root would let the job out", "firewall apply --uid 0 -c " + file, "not as root", 2},
		{"a gateway without pools to tell", "firewall apply --mode gateway -c " + file, "interfaces or sources", 2},
		{"a service that is none", "firewall apply --mode gateway --allow-input ssh -c " + file, "services are dhcp and ntp", 2},
		{"the root of the cgroups", "firewall apply --cgroup / -c " + file, "cgroup", 2},
		{"a format that is none", "firewall status --format xml -c " + file, "formats are text and json", 2},
	} {
		r := command(t, ".", strings.Fields(c.args)...)
		if r.code != c.code || !strings.Contains(r.stderr, c.says) {
			t.Errorf("%s: %d %s; want %d %s", c.does, r.code, r.stderr, c.code, c.says)
		}
	}
	for _, c := range []struct{ word, says string }{{"apply", "NET_ADMIN"}, {"remove", "NET_ADMIN"}, {"status", "not known: reading the tables needs the capability NET_ADMIN"}} {
		r := commandIn(t, ".", nil, "capsh", "--drop=cap_net_admin", "--", "-c", binary+" firewall "+c.word+" -c "+file)
		if r.code != 1 || !strings.Contains(r.stdout+r.stderr, c.says) {
			t.Errorf("%s without the capability: %d %s%s", c.word, r.code, r.stdout, r.stderr)
		}
	}
}

// TestFirewallFollowsTheConfiguration is what listeners and pools make of the
// rules.
func TestFirewallFollowsTheConfiguration(t *testing.T) {
	inOwnNetwork(t)
	for _, c := range []struct {
		does, mode, listen, pool string
		has, lacks               []string
	}{
		{
			"an IPv4 listener opens IPv4 only", "sidecar", `transparent: "127.0.0.1:4000", dns: "127.0.0.1:5353"`, "",
			[]string{"meta nfproto ipv4 meta l4proto tcp redirect to :4000", "meta nfproto ipv4 udp dport 53 redirect to :5353", "# IPv6 is closed for the job"},
			[]string{"meta nfproto ipv6 meta l4proto tcp redirect"},
		},
		{
			"a wildcard opens both", "sidecar", `transparent: "[::]:4000", dns: "[::]:53"`, "",
			[]string{"meta nfproto ipv4 meta l4proto tcp redirect to :4000", "meta nfproto ipv6 meta l4proto tcp redirect to :4000"}, []string{"closed for"},
		},
		{
			"an address that no redirect leads to opens nothing", "sidecar", `transparent: "10.0.0.1:4000", dns: "10.0.0.1:53"`, "",
			[]string{"# IPv4 is closed for the job"}, []string{"redirect to"},
		},
		{
			"admin and control are private", "sidecar", `transparent: auto, admin: "127.0.0.1:9999"`, "",
			[]string{"elements = { 9999 }"}, nil,
		},
		{
			"other protocols pass in audit", "sidecar", `transparent: auto`, "mode: audit, ",
			[]string{"sallyport passed ", "169.254.169.254"}, nil,
		},
		{
			"and not otherwise", "sidecar", `transparent: auto`, "", nil, []string{"sallyport passed "},
		},
		{
			"a pool's own listeners take its packets", "gateway", `transparent: "0.0.0.0:3129", dns: "0.0.0.0:53", proxy: "10.0.0.1:3128"`,
			`interfaces: [br-build], sources: [10.20.0.0/24], listen: {transparent: "0.0.0.0:4129"}, `,
			[]string{"redirect to :4129", `iifname "br-build" ip saddr @sources4_0 goto take_0`, "elements = { 3128 }"}, []string{"redirect to :3129"},
		},
	} {
		t.Run(c.does, func(t *testing.T) {
			r := command(t, ".", "firewall", "print", "--mode", c.mode, "-c", firewallFile(t, c.listen, c.pool))
			if r.code != 0 {
				t.Fatal(r.stderr)
			}
			for _, want := range c.has {
				if !strings.Contains(r.stdout, want) {
					t.Errorf("without %q:\n%s", want, r.stdout)
				}
			}
			for _, bad := range c.lacks {
				if strings.Contains(r.stdout, bad) {
					t.Errorf("with %q:\n%s", bad, r.stdout)
				}
			}
		})
	}
}
