package firewall_test

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sallyport/proxy/firewall"
)

// aloneWithNft gives the test's thread, and what it starts, a network namespace
// of its own.
func aloneWithNft(t *testing.T) (nft func(script string) string) {
	t.Helper()
	if _, err := exec.LookPath("nft"); err != nil || os.Geteuid() != 0 {
		if os.Getenv("SALLYPORT_CI") == "1" {
			t.Fatal("CI must have root and nft")
		}
		t.Skip("SKIPPED on this machine: needs root and nft")
	}
	runtime.LockOSThread() // the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	return func(script string) string {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(script)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("nft: %v\n%s", err, out)
		}
		return string(out)
	}
}

// TestLacksChangesNothing asks what a plan would miss, before and after another
// is in place.
func TestLacksChangesNothing(t *testing.T) {
	nft := aloneWithNft(t)
	ask := func(name string) {
		t.Helper()
		if lacks, err := firewall.Lacks(plans()[name]); err != nil || lacks != nil {
			t.Errorf("this kernel, which takes all plans, lacks %q, %v", lacks, err)
		}
	}
	ask("gateway")
	ask("sidecar")
	if out := nft("list ruleset\n"); out != "" {
		t.Fatalf("trying left\n%s", out)
	}
	if err := firewall.Apply(plans()["sidecar-closed"]); err != nil {
		t.Fatal(err)
	}
	ask("gateway")
	ask("sidecar")
	if found, err := firewall.Compare(plans()["sidecar-closed"]); err != nil || found != nil {
		t.Errorf("trying spoilt what is in place: %v %v", found, err)
	}
}

func TestOtherChains(t *testing.T) {
	nft := aloneWithNft(t)
	if err := firewall.Apply(plans()["sidecar-closed"]); err != nil {
		t.Fatal(err)
	}
	nft(`
table ip nat {
	chain DOCKER { masquerade; }
	chain OUTPUT { type nat hook output priority -100; }
	chain POSTROUTING {
		type nat hook postrouting priority 100
		oifname "br-build" masquerade
		ip saddr 172.17.0.0/16 oifname != "docker0" masquerade
		oifname "br-other" accept
		oif lo snat to 192.0.2.1
	}
}
table inet early {
	chain steal { type nat hook output priority -110; }
}
table ip6 raw {
	chain first { type filter hook prerouting priority -300; }
}
`)
	chains, err := firewall.OtherChains()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range chains {
		line := c.String()
		if c.BeforeOurs() {
			line += " before ours"
		}
		got = append(got, strings.Join(append([]string{line}, c.Translates...), " +"))
	}
	want := `inet early steal (nat output, priority -110) before ours
ip nat OUTPUT (nat output, priority -100)
ip nat POSTROUTING (nat postrouting, priority 100) +br-build +lo
ip6 raw first (filter prerouting, priority -300)`
	if strings.Join(got, "\n") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
}
