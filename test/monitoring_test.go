package test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// ourMetric is a metric in an expression, with its selector if it has one.
var ourMetric = regexp.MustCompile(`(sallyport_[a-z_]+)(\{[^}]*\})?`)

// documentedMetric is a row of docs/metrics.md.
var documentedMetric = regexp.MustCompile("(?m)^\\| `(sallyport_[a-z_]+)` \\| [a-z]+ \\|([^|]*)\\|")

// checkMetrics holds the metrics of an expression, and the labels that it
// selects by, against docs/metrics.md. It gives how many there are.
func checkMetrics(t *testing.T, where, expr string) int {
	t.Helper()
	labels := make(map[string]string)
	for _, row := range documentedMetric.FindAllStringSubmatch(readText(t, "../docs/metrics.md"), -1) {
		labels[row[1]] = row[2]
	}
	found := ourMetric.FindAllStringSubmatch(expr, -1)
	for _, m := range found {
		known, ok := labels[strings.TrimSuffix(m[1], "_bucket")]
		if !ok {
			t.Errorf("%s: no metric %s is documented", where, m[1])
		}
		for _, by := range regexp.MustCompile(`([a-z_]+)\s*(?:=~|!=|!~|=)`).FindAllStringSubmatch(m[2], -1) {
			if by[1] != "instance" && by[1] != "job" && !strings.Contains(known, "`"+by[1]+"`") {
				t.Errorf("%s: %s has no label %s", where, m[1], by[1])
			}
		}
	}
	return len(found)
}

// promtool runs it in deploy/prometheus.
func promtool(t *testing.T, args ...string) string {
	t.Helper()
	needProgram(t, "promtool")
	cmd := exec.Command("promtool", args...)
	cmd.Dir = "../deploy/prometheus"
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("promtool %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// TestPrometheusRules: each rule of deploy/prometheus fires for its cause, and
// none while all is well; it goes by metrics that there are.
func TestPrometheusRules(t *testing.T) {
	var file struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal([]byte(readText(t, "../deploy/prometheus/sallyport.rules.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	tests := readText(t, "../deploy/prometheus/sallyport.rules.test.yaml")
	rules := file.Groups[0].Rules
	for _, r := range rules {
		if checkMetrics(t, r.Alert, r.Expr) == 0 && !strings.HasPrefix(r.Expr, "up{") {
			t.Errorf("%s goes by no metric of ours", r.Alert)
		}
		if !strings.Contains(tests, "- name: "+r.Alert+"\n") || !strings.Contains(tests, "alertname: "+r.Alert+"}") {
			t.Errorf("%s has no test that it fires, or none that it is silent", r.Alert)
		}
	}
	if out := promtool(t, "check", "rules", "sallyport.rules.yaml"); !strings.Contains(out, fmt.Sprintf("%d rules found", len(rules))) {
		t.Error(out)
	}
	if out := promtool(t, "test", "rules", "sallyport.rules.test.yaml"); !strings.Contains(out, "SUCCESS") {
		t.Error(out)
	}
}

// TestGrafanaDashboard: each panel of deploy/grafana asks for metrics that there
// are, in expressions that Prometheus reads, and no two lie on each other.
func TestGrafanaDashboard(t *testing.T) {
	type query struct{ Expr string }
	type at struct{ X, Y, W, H int }
	var board struct {
		UID        string
		Templating struct{ List []struct{ Name string } }
		Panels     []struct {
			ID          int
			Type, Title string
			Description string
			GridPos     at
			Targets     []query
		}
	}
	if err := json.Unmarshal([]byte(readText(t, "../deploy/grafana/sallyport.json")), &board); err != nil || board.UID != "sallyport" || len(board.Templating.List) != 3 {
		t.Fatalf("%v: %q with %d variables", err, board.UID, len(board.Templating.List))
	}
	rules := map[string]any{}
	var records []map[string]string
	taken, ids := make(map[[2]int]string), make(map[int]bool)
	for _, p := range board.Panels {
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%s lies on %s", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if ids[p.ID] {
			t.Errorf("two panels have the id %d", p.ID)
		}
		ids[p.ID] = true
		if p.Type != "row" && (len(p.Targets) == 0 || p.Description == "") {
			t.Errorf("%s asks for nothing, or does not say for what", p.Title)
		}
		for _, q := range p.Targets {
			if checkMetrics(t, p.Title, q.Expr) == 0 && !strings.Contains(q.Expr, "process_") {
				t.Errorf("%s: %s has no metric of ours", p.Title, q.Expr)
			}
			expr := strings.NewReplacer("$__rate_interval", "5m", "$__range", "6h", "$instance", ".*", "$pool", ".*").Replace(q.Expr)
			records = append(records, map[string]string{"record": fmt.Sprintf("panel:%d:%d", p.ID, len(records)), "expr": expr})
		}
	}
	rules["groups"] = []map[string]any{{"name": "panels", "rules": records}}
	text, err := yaml.Marshal(rules)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "panels.yaml")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	if out := promtool(t, "check", "rules", file); !strings.Contains(out, fmt.Sprintf("%d rules found", len(records))) || len(records) < 20 {
		t.Error(out)
	}
}
