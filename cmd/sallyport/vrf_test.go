package main

import (
	"strings"
	"testing"
	"time"

	"sallyport/allowlists"
	"sallyport/allowlists/diag"
)

// vrfPools are two pools with one source and the interfaces given.
func vrfPools(a, b string) string {
	return "listen: {proxy: 10.0.0.1:3128}\npools:\n" +
		"  a: {sources: [10.9.0.0/24, 10.0.0.0/24], interfaces: [" + a + "], allow: [a.example]}\n" +
		"  b: {sources: [10.0.0.0/24], interfaces: [" + b + "], allow: [b.example]}\n"
}

// Pools with the same source are told apart by the VRFs of their interfaces.
func TestSameSourceNeedsVRFs(t *testing.T) {
	machine := map[string]string{"br0": "", "br1": "", "red0": "red", "red1": "red", "blue0": "blue"}
	vrf := func(iface string) (string, bool) { name, ok := machine[iface]; return name, ok }
	for what, c := range map[string]struct{ a, b, err, warning string }{
		"two VRFs":                               {"red0", "blue0", "", ""},
		"one in a VRF, one in the main table":    {"red0", "br0", "", ""},
		"both in the main table":                 {"br0", "br1", "br0 and br1 are not in different VRFs", ""},
		"both in one VRF":                        {"red0", "red1", "red0 and red1 are not in different VRFs", ""},
		"one of several shares a VRF":            {"br0, red0", "blue0, red1", "red0 and red1 are not in different VRFs", ""},
		"an interface that is not here":          {"red0", "tap7", "", "there is no interface tap7"},
		"one shared, one not here, in any order": {"tap7, br0", "br1", "br0 and br1 are not in different VRFs", ""},
	} {
		text := vrfPools(c.a, c.b)
		file, report := allowlists.Load([]allowlists.Source{{Name: "f.yaml", Text: []byte(text)}}, nil, time.Now())
		if file == nil || len(report.Warnings()) > 0 {
			t.Fatalf("%s: %v %v", what, report.Err(), report.Warnings())
		}
		checkVRFs(file, report, vrf)
		for list, want := range map[*[]diag.Problem]string{ptr(report.Errors()): c.err, ptr(report.Warnings()): c.warning} {
			switch {
			case want == "" && len(*list) > 0, want != "" && len(*list) != 1:
				t.Errorf("%s: %v", what, *list)
			case want != "" && (!strings.HasPrefix((*list)[0].String(), "f.yaml:4:17: ") || !strings.Contains((*list)[0].Text, want)):
				t.Errorf("%s: %v, want %q at the source of b", what, *list, want)
			}
		}
	}
}

func ptr[T any](value T) *T { return &value }
