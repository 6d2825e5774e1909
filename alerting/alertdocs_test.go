package alerting_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sallyport/alerting"
)

func TestEachAlertIsDocumented(t *testing.T) {
	data, err := os.ReadFile("../docs/alerts.md")
	if err != nil {
		t.Fatal(err)
	}
	var headings []string
	sections := map[string]string{}
	for _, section := range strings.Split(string(data), "\n## ")[1:] {
		name, body, _ := strings.Cut(section, "\n")
		headings = append(headings, name)
		sections[name] = body
	}
	known := alerting.KnownAlerts()
	if got := headings[:min(len(known), len(headings))]; !slices.Equal(got, known) {
		t.Errorf("the sections are %v, the alerts %v", got, known)
	}
	for _, name := range known {
		for _, part := range []string{"**Means:**", "**Needs:**", "**Known false alarms:**", "**Tune:**"} {
			if !strings.Contains(sections[name], part) {
				t.Errorf("%s does not say %s", name, part)
			}
		}
		if !strings.Contains(string(data), "| ["+name+"](#"+name+") |") {
			t.Errorf("%s is not in the table", name)
		}
	}
}

// TestEachThresholdIsDocumented takes the keys from the reference, which is
// made from the loader's table.
func TestEachThresholdIsDocumented(t *testing.T) {
	reference, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	alerts, err := os.ReadFile("../docs/alerts.md")
	if err != nil {
		t.Fatal(err)
	}
	keys := regexp.MustCompile("`alerts\\.thresholds\\.([a-z_]+)`.*").FindAllStringSubmatch(string(reference), -1)
	if len(keys) == 0 {
		t.Fatal("the reference has no threshold")
	}
	for _, key := range keys {
		if !strings.Contains(string(alerts), "`"+key[1]+"`") {
			t.Errorf("docs/alerts.md does not mention %s", key[1])
		}
	}
}
