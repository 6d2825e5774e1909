package test

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// deployed gives every file below deploy/ whose name has one of the endings.
func deployed(t *testing.T, endings ...string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir("../deploy", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && slices.ContainsFunc(endings, func(end string) bool { return strings.HasSuffix(path, end) }) {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// A document is one YAML document and where it stands.
type document struct {
	path string
	tree map[string]any
}

// documents reads every YAML document below deploy/.
func documents(t *testing.T) []document {
	t.Helper()
	var all []document
	for _, path := range deployed(t, ".yaml", ".yml") {
		decoder := yaml.NewDecoder(strings.NewReader(readText(t, path)))
		for {
			var tree map[string]any
			err := decoder.Decode(&tree)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Errorf("%s: %v", path, err)
				break
			}
			all = append(all, document{path, tree})
		}
	}
	return all
}

// at walks down a tree by keys; nil where there is nothing.
func at(tree any, keys ...string) any {
	for _, key := range keys {
		m, _ := tree.(map[string]any)
		tree = m[key]
	}
	return tree
}

// fileOf is the content of a file that cloud-init user data writes.
func fileOf(t *testing.T, userData map[string]any, path string) string {
	t.Helper()
	files, _ := userData["write_files"].([]any)
	for _, f := range files {
		if at(f, "path") == path {
			text, _ := at(f, "content").(string)
			return text
		}
	}
	t.Fatalf("user data writes no %s", path)
	return ""
}

// policiesOf gives the policies that a document is, or carries.
func policiesOf(t *testing.T, d document) []string {
	t.Helper()
	var found []string
	if d.tree["pools"] != nil {
		found = append(found, readText(t, d.path))
	}
	if text, ok := at(d.tree, "data", "sallyport.yaml").(string); ok {
		found = append(found, text)
	}
	if d.tree["write_files"] != nil {
		found = append(found, fileOf(t, d.tree, "/etc/sallyport/sallyport.yaml"))
	}
	return found
}

// deployEnvironment is what recipes say is in Sallyport's environment.
var deployEnvironment = []string{
	"JOBS_SUBNET=10.231.0.0/24", "SALLYPORT_ADDRESS=10.231.0.2", "SLACK_WEBHOOK_URL=",
	"KUBERNETES_SERVICE_HOST=10.96.0.1", "KUBERNETES_SERVICE_PORT=443",
}

// TestDeployPolicies: no policy below deploy/ has an error, and none a warning
// but those that docs/deploy.md, or the file itself, explains.
func TestDeployPolicies(t *testing.T) {
	const explained = "allows hosts where anyone can write data with an account of their own"
	if !strings.Contains(readText(t, "../docs/deploy.md"), "anyone can write data") {
		t.Error("docs/deploy.md does not explain the warning that every recipe has")
	}
	const closed = `no client is ever in pool "default"` // the image's own, until a policy is mounted over it
	checked := 0
	for _, d := range documents(t) {
		for _, policy := range policiesOf(t, d) {
			checked++
			path := filepath.Join(t.TempDir(), "sallyport.yaml")
			if err := os.WriteFile(path, []byte(policy), 0o644); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(binary, "check", "-c", path, "--strict")
			cmd.Env = append(os.Environ(), deployEnvironment...)
			out, _ := cmd.CombinedOutput()
			for line := range strings.Lines(string(out)) {
				known := strings.Contains(line, explained) || strings.Contains(line, closed) && strings.Contains(d.path, "/image/")
				if strings.Contains(line, ": warning: ") && !known {
					t.Errorf("%s: %s", d.path, line)
				}
			}
			if code := cmd.ProcessState.ExitCode(); code > 1 {
				t.Errorf("%s: check ends with %d\n%s", d.path, code, out)
			}
		}
	}
	if checked < 12 {
		t.Errorf("only %d policies were found", checked)
	}
}

// TestDeployParses: every file is what its name says.
func TestDeployParses(t *testing.T) {
	documents(t)
	for _, path := range deployed(t, ".json") {
		if !json.Valid([]byte(readText(t, path))) {
			t.Errorf("%s is no JSON", path)
		}
	}
	needProgram(t, "python3", "sh")
	for _, path := range deployed(t, ".toml") {
		if out, err := exec.Command("python3", "-c", "import sys, tomllib; tomllib.load(open(sys.argv[1], 'rb'))", path).CombinedOutput(); err != nil {
			t.Errorf("%s: %s", path, out)
		}
	}
	scripts := map[string]string{"install-sallyport": fileOf(t, userData(t), "/usr/local/sbin/install-sallyport")}
	for _, path := range deployed(t, "hooks/environment") {
		scripts[path] = readText(t, path)
	}
	commands, _ := userData(t)["runcmd"].([]any)
	for _, c := range commands {
		line, _ := c.(string)
		scripts["runcmd "+line] = line
	}
	for name, script := range scripts {
		cmd := exec.Command("sh", "-n")
		cmd.Stdin = strings.NewReader(script)
		if out, err := cmd.CombinedOutput(); err != nil || script == "" {
			t.Errorf("%s: %v %s", name, err, out)
		}
	}
}

// TestDeployCompose: Compose takes every file of deploy/compose.
func TestDeployCompose(t *testing.T) {
	command := composeCommand()
	need(t, command != nil, "Docker Compose")
	for _, path := range deployed(t, "compose.yaml") {
		all := append(command[1:len(command):len(command)], "-f", path, "config", "-q")
		cmd := exec.Command(command[0], all...)
		cmd.Env = append(os.Environ(), "RUNNER_IMAGE=runner.corp.example/runner")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", path, err, out)
		}
	}
	// Who shares the gate's network namespace may not become its user.
	var sidecar struct {
		Services map[string]struct {
			NetworkMode string   `yaml:"network_mode"`
			PID         string   `yaml:"pid"`
			Drop        []string `yaml:"cap_drop"`
			Add         []string `yaml:"cap_add"`
			Security    []string `yaml:"security_opt"`
			Privileged  bool
		}
	}
	if err := yaml.Unmarshal([]byte(readText(t, "../deploy/compose/transparent/compose.yaml")), &sidecar); err != nil {
		t.Fatal(err)
	}
	job := sidecar.Services["runner"]
	if job.NetworkMode != "service:sallyport" || job.PID != "service:sallyport" || !dropped(job.Drop) || len(job.Add) > 0 || job.Privileged ||
		!slices.Contains(job.Security, "no-new-privileges") {
		t.Errorf("the runner of the transparent recipe: %+v", job)
	}
	if gate := sidecar.Services["sallyport"]; !slices.Equal(gate.Drop, []string{"ALL"}) || !slices.Equal(gate.Add, []string{"NET_ADMIN", "SETUID", "SETGID"}) {
		t.Errorf("the gate of the transparent recipe: %+v", gate)
	}
}

// dropped reports whether a job has none of the capabilities by which it could
// pass for the gate.
func dropped(drop []string) bool {
	if slices.Contains(drop, "ALL") {
		return true
	}
	for _, name := range []string{"NET_RAW", "SETUID", "SETGID"} {
		if !slices.Contains(drop, name) {
			return false
		}
	}
	return true
}

// commandLine finds command lines of ours in documents, scripts and units.
var commandLine = regexp.MustCompile("(?:^|[\\s`/(+=\"])sallyport ((?:run|check|explain|env|wait-ready|healthcheck|doctor|firewall|presets|version)\\b[^\\n`|;&>)\"]*)")

// commandLines gives the command lines of ours in a text, without the program:
// as people type them, and as lists of YAML.
func commandLines(text string) (lines []string) {
	for _, m := range commandLine.FindAllStringSubmatch(text, -1) {
		line, _, _ := strings.Cut(m[1], " #")
		lines = append(lines, strings.TrimSpace(line))
	}
	for _, m := range regexp.MustCompile(`(?:args|command): \[(.*?)\]`).FindAllStringSubmatch(text, -1) {
		words := strings.FieldsFunc(m[1], func(r rune) bool { return r == ',' || r == ' ' || r == '"' })
		if len(words) > 0 && words[0] == "/sallyport" {
			words = words[1:]
		}
		if line := strings.Join(words, " "); commandLine.MatchString("sallyport " + line) {
			lines = append(lines, line)
		}
	}
	return lines
}

// TestDeployCommands holds every command line of deploy/ and the documents about
// it against the program's own help: the command and all its flags exist.
func TestDeployCommands(t *testing.T) {
	help := make(map[string]string)
	paths := append(deployed(t, ""), "../docs/deploy.md", "../docs/containers.md", "../README.md")
	seen := 0
	for _, path := range paths {
		for _, line := range commandLines(readText(t, path)) {
			seen++
			words := strings.Fields(line)
			command := words[:1]
			if words[0] == "firewall" && len(words) > 1 {
				command = words[:2]
			}
			name := strings.Join(command, " ")
			if help[name] == "" {
				out, err := exec.Command(binary, append(slices.Clone(command), "--help")...).CombinedOutput()
				if err != nil || !strings.Contains(string(out), "sallyport "+name) {
					t.Errorf("%s: %q: there is no such command", path, line)
					continue
				}
				help[name] = string(out)
			}
			for _, word := range words[len(command):] {
				flag, _, _ := strings.Cut(word, "=")
				if strings.HasPrefix(flag, "-") && !regexp.MustCompile(`(^|[\s,])`+regexp.QuoteMeta(flag)+`[\s,]`).MatchString(help[name]) {
					t.Errorf("%s: %q: %s has no flag %s", path, line, name, flag)
				}
			}
		}
	}
	if seen < 30 {
		t.Errorf("only %d command lines were found", seen)
	}
}

func userData(t *testing.T) map[string]any {
	t.Helper()
	var tree map[string]any
	if err := yaml.Unmarshal([]byte(readText(t, "../deploy/cloud-init/user-data.yaml")), &tree); err != nil {
		t.Fatal(err)
	}
	return tree
}

// TestDeployCloudInit: the user data holds the unit of deploy/systemd as it is,
// and cloud-init takes it.
func TestDeployCloudInit(t *testing.T) {
	if fileOf(t, userData(t), "/etc/systemd/system/sallyport-gateway.service") != readText(t, "../deploy/systemd/sallyport-gateway.service") {
		t.Error("the unit in the user data is not that of deploy/systemd")
	}
	needProgram(t, "cloud-init")
	if out, err := exec.Command("cloud-init", "schema", "--config-file", "../deploy/cloud-init/user-data.yaml").CombinedOutput(); err != nil {
		t.Errorf("cloud-init: %v\n%s", err, out)
	}
}

// TestDeployUnits: systemd takes the units, and rates them as docs/deploy.md says.
func TestDeployUnits(t *testing.T) {
	needProgram(t, "systemd-analyze")
	dir, page := t.TempDir(), readText(t, "../docs/deploy.md")
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, name := range []string{"sallyport-sidecar.service", "sallyport-gateway.service"} {
		// The program is not installed here.
		unit := write(name, strings.ReplaceAll(readText(t, "../deploy/systemd/"+name), "/usr/local/bin/sallyport", binary))
		if out, err := exec.Command("systemd-analyze", "verify", unit).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		out, err := exec.Command("systemd-analyze", "security", "--no-pager", "--offline=true", unit).CombinedOutput()
		m := regexp.MustCompile(`Overall exposure level for (\S+): (\d+\.\d)`).FindStringSubmatch(string(out))
		if err != nil || m == nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		} else if !strings.Contains(page, "| `"+name+"` | "+m[2]+" |") {
			t.Errorf("docs/deploy.md does not say that %s has %s", name, m[2])
		}
	}
	write("runner.service.d/sallyport.conf", readText(t, "../deploy/systemd/runner.service.d/sallyport.conf"))
	runner := write("runner.service", "[Service]\nUser=runner\nExecStart=/bin/true\n")
	if out, err := exec.Command("systemd-analyze", "verify", runner).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("the runner's drop-in: %v\n%s", err, out)
	}
}

// A podSpec is what these tests look at of a pod.
type podSpec struct {
	Share       bool `yaml:"shareProcessNamespace"`
	HostNetwork bool `yaml:"hostNetwork"`
	HostPID     bool `yaml:"hostPID"`
	Init        []container
	Containers  []container
}

type container struct {
	Name    string
	Args    []string
	Restart string `yaml:"restartPolicy"`
	Startup struct {
		Exec struct{ Command []string }
	} `yaml:"startupProbe"`
	Security struct {
		User         *int  `yaml:"runAsUser"`
		Escalation   *bool `yaml:"allowPrivilegeEscalation"`
		Privileged   bool
		Capabilities struct{ Add, Drop []string }
	} `yaml:"securityContext"`
}

// podOf reads a pod out of a tree.
func podOf(t *testing.T, tree any) podSpec {
	t.Helper()
	text, err := yaml.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	var p podSpec
	if err := yaml.Unmarshal([]byte(strings.Replace(string(text), "initContainers:", "init:", 1)), &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// transparentPods are the pods below deploy/ that hold a gate.
func transparentPods(t *testing.T) map[string]podSpec {
	t.Helper()
	pods := make(map[string]podSpec)
	for _, d := range documents(t) {
		for _, spec := range []any{d.tree["spec"], at(d.tree, "template", "spec")} {
			if at(spec, "initContainers") != nil {
				pods[d.path] = podOf(t, spec)
			}
		}
	}
	needProgram(t, "python3")
	const path = "../deploy/gitlab/kubernetes.toml"
	out, err := exec.Command("python3", "-c", `import sys, tomllib
print(tomllib.load(open(sys.argv[1], "rb"))["runners"][0]["kubernetes"]["pod_spec"][0]["patch"])`, path).Output()
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := yaml.Unmarshal(out, &tree); err != nil {
		t.Fatal(err)
	}
	pods[path] = podOf(t, tree)
	return pods
}

// TestDeployPods: in every pod the firewall comes first, then the gate, then
// the jobs, which may neither become the gate's user nor send raw frames.
func TestDeployPods(t *testing.T) {
	pods := transparentPods(t)
	if len(pods) < 5 {
		t.Fatalf("only %d pods were found", len(pods))
	}
	for path, pod := range pods {
		if !pod.Share || pod.HostNetwork || pod.HostPID || len(pod.Init) != 2 {
			t.Errorf("%s: %+v", path, pod)
			continue
		}
		first, gate := pod.Init[0], pod.Init[1]
		if user := first.Security.User; user == nil || *user != 0 || first.Restart != "" || !slices.Equal(first.Security.Capabilities.Drop, []string{"ALL"}) ||
			!slices.Equal(first.Security.Capabilities.Add, []string{"NET_ADMIN"}) || first.Args[0] != "firewall" {
			t.Errorf("%s: the firewall is applied by %+v", path, first)
		}
		if user := gate.Security.User; user == nil || *user != 0 || gate.Restart != "Always" || !slices.Equal(gate.Security.Capabilities.Drop, []string{"ALL"}) ||
			!slices.Equal(gate.Security.Capabilities.Add, []string{"SETUID", "SETGID"}) || !strings.HasPrefix(strings.Join(gate.Args, " "), "run -c /etc/sallyport/sallyport.yaml --uid 65532") || !slices.Contains(gate.Startup.Exec.Command, "wait-ready") {
			t.Errorf("%s: the gate is %+v", path, gate)
		}
		for _, job := range pod.Containers {
			s := job.Security
			if s.Escalation == nil || *s.Escalation || s.Privileged || !dropped(s.Capabilities.Drop) || len(s.Capabilities.Add) > 0 || s.User != nil && *s.User == 65532 {
				t.Errorf("%s: the job may pass for the gate: %+v", path, job)
			}
		}
	}
}

// TestDeployNetworkPolicy: the one way that runners have leads to the ports
// where Sallyport's pods listen.
func TestDeployNetworkPolicy(t *testing.T) {
	listens := make(map[string]bool)
	var egress []any
	for _, d := range documents(t) {
		if filepath.Base(d.path) != "explicit.yaml" {
			continue
		}
		switch d.tree["kind"] {
		case "Deployment":
			containers, _ := at(d.tree, "spec", "template", "spec", "containers").([]any)
			ports, _ := at(containers[0], "ports").([]any)
			for _, p := range ports {
				proto, _ := at(p, "protocol").(string)
				listens[portText(at(p, "containerPort"), proto)] = at(p, "name") != "admin"
			}
		case "NetworkPolicy":
			if at(d.tree, "metadata", "namespace") == "runners" {
				egress, _ = at(d.tree, "spec", "egress").([]any)
				if types, _ := at(d.tree, "spec", "policyTypes").([]any); len(types) != 2 || len(at(d.tree, "spec", "podSelector").(map[string]any)) > 0 {
					t.Errorf("the policy of the runners: %v", d.tree["spec"])
				}
			}
		}
	}
	if len(egress) != 1 {
		t.Fatalf("runners have %d ways out, want one", len(egress))
	}
	ports, _ := at(egress[0], "ports").([]any)
	to, _ := at(egress[0], "to").([]any)
	if len(ports) != 3 || len(to) != 1 || at(to[0], "podSelector") == nil || at(to[0], "namespaceSelector") == nil {
		t.Errorf("runners may reach %v", egress[0])
	}
	for _, p := range ports {
		proto, _ := at(p, "protocol").(string)
		if !listens[portText(at(p, "port"), proto)] {
			t.Errorf("runners may reach %v, where they have no business", p)
		}
	}
}

func portText(port any, proto string) string {
	text, _ := json.Marshal(port)
	if proto == "" {
		proto = "TCP"
	}
	return proto + " " + string(text)
}
