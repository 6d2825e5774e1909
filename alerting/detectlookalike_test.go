package alerting_test

import (
	"fmt"
	"strings"
	"testing"

	"sallyport/alerting"
	"sallyport/allowlists"
)

// policyOf is a policy with a pool build that allows and keeps quiet what is
// given, each a host with or without a wildcard.
func policyOf(t testing.TB, allow, quiet []string) func() *allowlists.Policy {
	t.Helper()
	rules := func(hosts []string) (rules []allowlists.Rule) {
		for _, host := range hosts {
			pattern, err := allowlists.ParsePattern(host)
			if err != nil {
				t.Fatal(err)
			}
			rules = append(rules, allowlists.Rule{Text: host, Host: pattern, Ports: allowlists.NewPortSet(443)})
		}
		return rules
	}
	policy, err := allowlists.NewPolicy(allowlists.PolicySpec{Pools: []allowlists.PoolSpec{{Name: "build", Allow: rules(allow), Quiet: rules(quiet)}, {Name: "deploy"}}})
	if err != nil {
		t.Fatal(err)
	}
	return func() *allowlists.Policy { return policy }
}

func TestALookalikeIsAlmostAnAllowedDomain(t *testing.T) {
	allow := []string{
		"github.com", "*.googleapis.com", "registry.microsoft.com", "paypal.com", "glb-*.python.org", "mirror.corp-mirror.example",
		"tiny.dev", "bücher.example", "cdn1.example", "storage7.example", "runner.github.io", "shop.co.uk", "portal.co.uk", "123456.example",
	}
	policy := policyOf(t, allow, []string{"gitlub.com", "*.paypals.com"})
	for _, c := range []struct {
		asked string
		like  string // the allowed domain; empty: none
	}{
		{"githab.com", "github.com"},
		{"githubb.com", "github.com"},
		{"gihub.com", "github.com"},
		{"gtihub.com", "github.com"},
		{"raw.githab.com", "github.com"},
		{"g1thub.com", "github.com"},
		{"storage.gooogleapis.com", "googleapis.com"},
		{"rnicrosoft.com", "microsoft.com"},
		{"paypa1.com", "paypal.com"},
		{"pаypаl.com", "paypal.com"}, // two letters are Cyrillic
		{"gіthub.com", "github.com"},
		{"githvb.io", "github.io"},
		{"team.githvb.io", "github.io"},
		{"runer.github.io", "runner.github.io"},
		{"pythön.org", "python.org"},
		{"pyth0n.org", "python.org"},
		{"corpmirror.example", "corp-mirror.example"},
		{"bucher.example", "xn--bcher-kva.example"},
		{"storag7.example", "storage7.example"},
		{"github.net", "github.com"},
		{"github.org.uk", "github.com"},
		{"portal.com", "portal.co.uk"},

		{"github.com", ""},
		{"api.github.com", ""},
		{"other.googleapis.com", ""},
		{"gitub.net", ""},   // an edit and another ending
		{"githaab.com", ""}, // two edits
		{"gitlub.com", ""},  // quiet
		{"paypals.com", ""}, // a domain of quiet
		{"tinny.dev", "tiny.dev"},
		{"tny.dev", ""},      // too short
		{"tiny.com", ""},     // too short
		{"cdn2.example", ""}, // too short, digits aside
		{"storage8.example", ""},
		{"123457.example", ""},
		{"runner.gitlab.io", ""}, // no registry hands out gitlab.io
		{"other.github.io", ""},
		{"runner.github.com", ""},
		{"paypal.gitlab.io", ""},
		{"unrelated.example", ""},
		{"com", ""},
		{"localhost", ""},
	} {
		correlator := newCorrelator(t, alerting.CorrelatorSetup{Policy: policy})
		host, err := allowlists.ParseHost(c.asked)
		if err != nil {
			t.Fatal(err)
		}
		correlator.Take(question(host.String()))
		correlator.Take(connect(host.String(), 443))
		want := "denied-egress:medium:2"
		if c.like != "" {
			want = "lookalike:medium:2"
		}
		alerts := correlator.Alerts()
		if got := summarise(alerts); got != want {
			t.Errorf("%s: raises %s, want %s", c.asked, got, want)
			continue
		}
		if c.like != "" && !strings.Contains(alerts[0].Summary, "which allows "+c.like+", ") {
			t.Errorf("%s: says %q, not that it is like %s", c.asked, alerts[0].Summary, c.like)
		}
	}
}

func TestALookalikeIsRefusedForNotBeingAllowed(t *testing.T) {
	for _, c := range []struct {
		when  string
		event alerting.Event
		want  string
	}{
		{"in audit", connect("githab.com", 443, audited), "lookalike:medium:1"},
		{"claimed in TLS", connect("githab.com", 443, transparent("githab.com", "203.0.113.9")), "lookalike:medium:1"},
		{"denied by a rule", connect("githab.com", 443, reason(allowlists.DeniedByRule)), "denied-egress:medium:1"},
		{"quiet", connect("githab.com", 443, quiet), ""},
		{"an echo of a search suffix", question("githab.com", search), ""},
		{"of a pool that does not allow the other", connect("githab.com", 443, inPool("deploy")), "denied-egress:medium:1"},
		{"of no pool", connect("githab.com", 443, inPool("")), "denied-egress:medium:1"},
		{"a DoH name", question("githab.com", reason(allowlists.ResolverBypass)), "foreign-resolver:high:1"},
		{"genuine, as a preset says that the pool does not use", question("docker.io"), "denied-egress:medium:1"},
	} {
		correlator := newCorrelator(t, alerting.CorrelatorSetup{Policy: policyOf(t, []string{"github.com", "docker.com"}, nil)})
		correlator.Take(c.event)
		if got := summarise(correlator.Alerts()); got != c.want {
			t.Errorf("%s: raises %q, want %q", c.when, got, c.want)
		}
	}
}

// TestLookalikesGoByThePolicyInForce allows the domain, and then another.
func TestLookalikesGoByThePolicyInForce(t *testing.T) {
	policy := policyOf(t, []string{"github.com"}, nil)
	correlator := newCorrelator(t, alerting.CorrelatorSetup{Policy: func() *allowlists.Policy { return policy() }})
	correlator.Take(question("githab.com"))
	policy = policyOf(t, []string{"pythons.org"}, nil)
	correlator.Take(question("githab.com"))
	correlator.Take(question("python.org"))
	if got, want := summarise(correlator.Alerts()), "denied-egress:medium:1 lookalike:medium:1 lookalike:medium:1"; got != want {
		t.Errorf("raises %q, want %q", got, want)
	}
}

// TestALookalikeIsRememberedForItsPool asks for one again, for another pool and
// after more names than are remembered.
func TestALookalikeIsRememberedForItsPool(t *testing.T) {
	c := newCorrelator(t, alerting.CorrelatorSetup{Policy: policyOf(t, []string{"github.com"}, nil)})
	c.Take(question("githab.com"))
	c.Take(question("githab.com", inPool("deploy")))
	c.Take(question("githab.com"))
	if got, want := summarise(c.Alerts()), "denied-egress:medium:1 lookalike:medium:2"; got != want {
		t.Errorf("raises %q, want %q", got, want)
	}
	for i := range 3 * alerting.LikeSeen {
		c.Take(question(fmt.Sprintf("n%d.unrelated.example", i), inPool("deploy"), client("10.20.0.9")))
		if n := c.LikenessesSeen(); n > alerting.LikeSeen {
			t.Fatalf("%d hosts are remembered", n)
		}
	}
	c.Take(question("githab.com"))
	if got := summarise(c.Alerts()); !strings.Contains(got, "lookalike:medium:3") {
		t.Errorf("raises %q, no third look-alike", got)
	}
}

// TestEditsAreThoseOfASlowComparison holds the index against a comparison with
// every allowed domain.
func TestEditsAreThoseOfASlowComparison(t *testing.T) {
	letters := "abcde"
	word := func(n int) string {
		b := []byte("common")
		for i := range b {
			if n%3 == 0 {
				b[i] = letters[n%5]
			}
			n /= 3
		}
		return string(b[:4+n%3])
	}
	var allow []string
	for i := range 60 {
		allow = append(allow, word(i*7)+".example")
	}
	for i := range 2000 {
		asked := word(i)
		fast, slow := alerting.LooksLike(allow, asked+".example")
		if fast != slow {
			t.Fatalf("%s: %v by the index, %v one by one", asked, fast, slow)
		}
	}
}

// BenchmarkLookalike is what a refused name costs beside 100,000 rules: 10 µs
// on a busy machine of 2 cores, after 1 s once for the index of 24 MB.
func BenchmarkLookalike(b *testing.B) {
	allow := make([]string, 100000)
	for i := range allow {
		allow[i] = fmt.Sprintf("host-%d-of-many.example", i*7919)
	}
	find := alerting.LookalikeFinder(allow)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		find(fmt.Sprintf("hos-%d-of-many.example", i))
	}
}
