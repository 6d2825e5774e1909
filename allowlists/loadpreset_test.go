package allowlists_test

import (
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sallyport/allowlists"
	"sallyport/allowlists/presets"
)

// The embedded configuration and the documented sample load with the built-in
// presets.
func TestBuiltInPresetsLoad(t *testing.T) {
	f, report := allowlists.Load(allowlists.Embedded(), testEnv, today)
	if f == nil || len(f.Spec.Pools[0].Allow) < 10 {
		t.Fatal(report.Err())
	}
	text, err := os.ReadFile("testdata/ok/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	// Also without the parameters of a preset that has some.
	bare := regexp.MustCompile(`, region: [^,]*, account: [^,]*`).ReplaceAllString(string(text), "")
	if bare == string(text) {
		t.Fatal("the sample has changed")
	}
	for _, sample := range []string{string(text), bare} {
		f, report := allowlists.Load([]allowlists.Source{{Name: "sallyport.yaml", Text: []byte(sample)}}, testEnv, today)
		if f == nil {
			var out strings.Builder
			report.WriteErrors(&out)
			t.Error(out.String())
		}
	}
}

// The preset for a cluster's API server takes its address from the environment
// of the pod, and allows exactly that.
func TestPresetFromTheEnvironment(t *testing.T) {
	text := "pools:\n  build: {sources: [127.0.0.1], presets: [kubernetes-api]}\n"
	cluster := func(vars map[string]string) func(string) (string, bool) {
		return func(name string) (string, bool) { v, set := vars[name]; return v, set }
	}
	source := []allowlists.Source{{Name: "sallyport.yaml", Text: []byte(text)}}
	f, report := allowlists.Load(source, cluster(map[string]string{"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "6443"}), today)
	if f == nil {
		t.Fatal(report.Err())
	}
	build := f.Policy.Pools()[0]
	for _, c := range []struct {
		addr string
		port uint16
		want allowlists.Reason
	}{
		{"10.96.0.1", 6443, allowlists.Allowed},
		{"10.96.0.1", 443, allowlists.PortNotAllowed},
		{"10.96.0.2", 6443, allowlists.SpecialAddress},
	} {
		if got := build.DecideLiteral(netip.MustParseAddr(c.addr), c.port, today).Reason; got != c.want {
			t.Errorf("%s:%d is %s, want %s", c.addr, c.port, got, c.want)
		}
	}
	for _, rule := range f.Spec.Pools[0].Allow {
		if !rule.Host.IsZero() && (len(rule.ResolvesTo) != 1 || rule.ResolvesTo[0].String() != "10.96.0.1/32") {
			t.Errorf("%s resolves to %v", rule.Host, rule.ResolvesTo)
		}
	}
	for name, vars := range map[string]map[string]string{
		"outside a cluster":      {},
		"no port":                {"KUBERNETES_SERVICE_HOST": "10.96.0.1"},
		"a name for the address": {"KUBERNETES_SERVICE_HOST": "api.cluster.example", "KUBERNETES_SERVICE_PORT": "443"},
	} {
		if f, _ := allowlists.Load(source, cluster(vars), today); f != nil {
			t.Errorf("%s: it loads", name)
		}
	}
	_, report = allowlists.Load(source, cluster(nil), today)
	if want := `sallyport.yaml:2:43: preset "kubernetes-api" takes KUBERNETES_SERVICE_HOST from the environment, where it is not set; set it, or leave the preset out`; !strings.Contains(report.Err().Error(), want) {
		t.Errorf("%v\nwant %s", report.Err(), want)
	}
}

// Lint reads some lines of the presets only.
func TestLintKnowsEveryWritableHost(t *testing.T) {
	t.Parallel()
	var want []string
	for _, rule := range allowlists.PresetRules() {
		if rule.Writable {
			want = append(want, rule.Host.String())
		}
	}
	var got []string
	for _, rule := range allowlists.WritableHosts() {
		got = append(got, rule.Host.String())
	}
	if len(want) < 20 || !slices.Equal(got, want) {
		t.Errorf("writable are %q, want %q", got, want)
	}
}

// A download is at a host of its preset, on 443, so that presets verify may ask
// for it.
func TestPresetDownloadsAreCovered(t *testing.T) {
	seen := 0
	for _, list := range allowlists.PresetLists() {
		for _, u := range list.Downloads {
			seen++
			host, err := allowlists.ParseHost(u.Hostname())
			if err != nil || !slices.ContainsFunc(list.Allow, func(r allowlists.Rule) bool { return r.Host.Matches(host) && r.Ports.Contains(443) }) {
				t.Errorf("preset %s does not have the host of %s (%v)", list.Name, u, err)
			}
		}
	}
	named := 0
	for _, name := range presets.Names() {
		text, _ := presets.Get(name)
		named += strings.Count(string(text), "  - url: ")
	}
	if seen < 8 || seen != named {
		t.Errorf("%d downloads, of %d that presets name", seen, named)
	}
}
