package test

import (
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"gopkg.in/yaml.v3"
)

// update makes the tests write what documents say of a run, instead of holding
// them against it.
var update = flag.Bool("update", false, "write README.md from a run")

// A transcript is a fenced "console" block of a document: commands after "$ ",
// each with its output.
var transcript = regexp.MustCompile("(?s)```console\n(.*?)```\n")

// fill runs the commands of a block and gives the block with their output.
func fill(t *testing.T, block string, run func(command string) string) string {
	t.Helper()
	var b strings.Builder
	for line := range strings.Lines(block) {
		command, ok := strings.CutPrefix(line, "$ ")
		if !ok {
			continue // output, which is made anew
		}
		b.WriteString(line + run(strings.TrimSuffix(command, "\n")))
	}
	return b.String()
}

// What differs from run to run, and what stands for it in documents.
var (
	idInStatus = regexp.MustCompile(`, [a-z2-9]{12}\)`)
	idInHeader = regexp.MustCompile(`Sallyport-Id: [a-z2-9]{12}`)
	idInBody   = regexp.MustCompile(`\(decision [a-z2-9]{12}\)`)
)

const documentID = "k3v9x2m4p7qa"

func mask(output string) string {
	output = strings.ReplaceAll(output, "\r\n", "\n")
	output = idInStatus.ReplaceAllString(output, ", "+documentID+")")
	output = idInBody.ReplaceAllString(output, "(decision "+documentID+")")
	return idInHeader.ReplaceAllString(output, "Sallyport-Id: "+documentID)
}

// TestReadmeExamples runs every command that README.md shows, and holds the
// output that it shows against theirs. The daemon has the embedded
// configuration, but for its addresses, and for a resolver and a github.com
// that are on this machine.
func TestReadmeExamples(t *testing.T) {
	needRoot(t) // github.com is on port 443
	needProgram(t, "curl", "sed", "head", "seq", "sha256sum", "cut")
	const path = "../README.md"
	text := readText(t, path)
	d, ca := embeddedDaemon(t)
	dir := readmeDir(t, text)
	env := append(os.Environ(),
		"PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"), "HOME="+dir, "CURL_CA_BUNDLE="+ca.file,
		"SLACK_WEBHOOK_URL=https://hooks.slack.example/services/T0/B0/secret", "LC_ALL=C")
	run := func(command string) string {
		cmd := exec.Command("bash", "-c", strings.ReplaceAll(command, "127.0.0.1:3128", d.proxyIf(command)))
		cmd.Dir, cmd.Env = dir, env
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatalf("%s: %v", command, err)
		}
		return mask(strings.ReplaceAll(string(out), d.ip, "127.0.0.1"))
	}
	blocks := 0
	filled := transcript.ReplaceAllStringFunc(text, func(block string) string {
		blocks++
		return "```console\n" + fill(t, transcript.FindStringSubmatch(block)[1], run) + "```\n"
	})
	if *update {
		if err := os.WriteFile(path, []byte(filled), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if filled != text {
		t.Errorf("README.md shows other output than a run (go test ./test -run Readme -update writes it):\n%s", firstDifference(text, filled))
	}
	for _, want := range []string{"proxy 200, server 200\n", "\nHTTP/1.1 403 Sallyport: example.com:443 not in pool default (not-in-allowlist, " + documentID + ")\n"} {
		_, example, _ := strings.Cut(filled, "<!-- begin example -->")
		if example, _, _ = strings.Cut(example, "<!-- end example -->"); !strings.Contains(example, want) {
			t.Errorf("the example lacks %q:\n%s", want, example)
		}
	}
	if blocks < 5 {
		t.Errorf("only %d blocks were run", blocks)
	}
}

// TestReadmeCommandsFitItsPolicy: who takes README's policy and then its
// commands for a job reaches the proxy that the policy binds.
func TestReadmeCommandsFitItsPolicy(t *testing.T) {
	text := readText(t, "../README.md")
	_, policy, _ := strings.Cut(text, "```yaml\n# sallyport.yaml\n")
	policy, _, _ = strings.Cut(policy, "```\n")
	var file struct {
		Listen struct{ Proxy, Admin string }
	}
	if err := yaml.Unmarshal([]byte(policy), &file); err != nil || file.Listen.Proxy == "" {
		t.Fatalf("README's policy binds no proxy: %v", err)
	}
	if file.Listen.Admin == "" {
		file.Listen.Admin = "127.0.0.1:9180" // the default
	}
	_, job, _ := strings.Cut(text, "## Beside a runner\n")
	for _, want := range []string{
		"\n    eval \"$(sallyport env --proxy http://" + file.Listen.Proxy + ")\"\n",
		"\n    sallyport wait-ready --admin " + file.Listen.Admin + "\n",
	} {
		if !strings.Contains(job, want) {
			t.Errorf("README does not say %q", want)
		}
	}
}

// proxyIf is the daemon's proxy for commands that go through one, and the
// address as it stands for the others, which only print it.
func (d *daemon) proxyIf(command string) string {
	if strings.HasPrefix(command, "curl ") {
		return d.proxy
	}
	return "127.0.0.1:3128"
}

// embeddedDaemon runs the embedded configuration with a world of its own.
func embeddedDaemon(t *testing.T) (*daemon, *testCA) {
	t.Helper()
	d, ca := prepare(t, config{}), newCA(t)
	cert := ca.issue("github.com")
	ip := d.ip[:strings.LastIndexByte(d.ip, '.')] + ".2"
	httpOrigin(t, ip+":443", &cert)
	upstream := newZone(t, "github.com. 60 IN A "+ip, "example.com. 60 IN A "+ip)
	_, pools, found := strings.Cut(readText(t, "../allowlists/embedded.yaml"), "pools:\n")
	if !found {
		t.Fatal("the embedded configuration has no pools key")
	}
	d.write(upstream.addr, pools+"    resolves_to: [127.0.0.0/8]\n")
	d.run()
	return d, ca
}

// readmeDir is where README's commands run: its sallyport.yaml is there, and
// the program in bin/.
func readmeDir(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	_, policy, found := strings.Cut(text, "```yaml\n# sallyport.yaml\n")
	policy, _, closed := strings.Cut("# sallyport.yaml\n"+policy, "```\n") // whole, as who copies it has it
	if !found || !closed {
		t.Fatal("README.md shows no sallyport.yaml")
	}
	if err := os.WriteFile(filepath.Join(dir, "sallyport.yaml"), []byte(policy), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(binary, filepath.Join(dir, "bin", "sallyport")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// firstDifference shows where two texts part.
func firstDifference(have, want string) string {
	a, b := strings.Split(have, "\n"), strings.Split(want, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("line %d\n document: %s\n run:      %s", i+1, a[i], b[i])
		}
	}
	return fmt.Sprintf("%d lines, and %d from a run", len(a), len(b))
}

// TestDocsLinks holds every link between our documents to a file that exists, and
// README's table to every document.
func TestDocsLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	documents, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(documents, "../README.md", "../CHANGELOG.md") {
		for _, m := range link.FindAllStringSubmatch(readText(t, path), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", path, m[1], err)
			}
		}
	}
	readme := readText(t, "../README.md")
	for _, path := range documents {
		if name := filepath.Base(path); !strings.Contains(readme, "\n| [docs/"+name+"](docs/"+name+") |") {
			t.Errorf("README's table lacks docs/%s", name)
		}
	}
}

// metricRow is a row of the table in docs/metrics.md.
var metricRow = regexp.MustCompile("(?m)^\\| `(sallyport_[a-z_]+)` \\| ([a-z]+) \\|([^|]*)\\| [^|]+ \\|$")

// A metric is its type and the names of its labels, sorted.
type metric struct {
	kind   string
	labels []string
}

// TestDocsMetrics holds the table of docs/metrics.md against the metrics page
// of a daemon that has done everything that makes a metric appear, both ways.
func TestDocsMetrics(t *testing.T) {
	documented := make(map[string]metric)
	for _, m := range metricRow.FindAllStringSubmatch(readText(t, "../docs/metrics.md"), -1) {
		labels := strings.FieldsFunc(m[3], func(r rune) bool { return r == '`' || r == ',' || r == ' ' })
		slices.Sort(labels)
		documented[m[1]] = metric{m[2], labels}
	}
	page := busyMetrics(t)
	served := parseMetrics(page)
	for name, want := range documented {
		switch got, ok := served[name]; {
		case !ok:
			t.Errorf("%s is documented and not served", name)
		case got.kind != want.kind || !slices.Equal(got.labels, want.labels):
			t.Errorf("%s is a %s with %v; documented is a %s with %v", name, got.kind, got.labels, want.kind, want.labels)
		}
	}
	for name := range served {
		if _, ok := documented[name]; !ok {
			t.Errorf("%s is served and not documented", name)
		}
	}
	if len(documented) < 16 {
		t.Errorf("docs/metrics.md has only %d rows", len(documented))
	}
	for _, name := range []string{"tunnel.example", "evil.example"} {
		if strings.Contains(page, name) {
			t.Errorf("the metrics page names the host %s", name)
		}
	}
}

// busyMetrics gives the metrics page of a daemon after answered and refused
// questions and connections, a reload, an alert and its delivery.
func busyMetrics(t *testing.T) string {
	t.Helper()
	received := make(chan struct{}, 64)
	sink := newWebhookSink(t, received)
	d := prepare(t, config{})
	echo := echoOrigin(t, d.ip+":0")
	zone := newZone(t, "tunnel.example. 60 IN A "+d.ip)
	d.extra = fmt.Sprintf("alerts: {state_dir: %s, webhook: {url: %q, hmac_secret: %q}}\n", d.path("state"), sink, strings.Repeat("s", 32))
	pools := "  build:\n    sources: [127.0.0.0/8]\n    resolves_to: [127.0.0.0/8]\n    allow: [\"tunnel.example:" + echo.port + "\"]\n"
	d.write(zone.addr, pools)
	d.run()

	ask(t, d.dns, "tunnel.example", dns.TypeA)
	ask(t, d.dns, "evil.example", dns.TypeA)
	tunnel := connect(t, d.proxy, "tunnel.example:"+echo.port)
	if _, err := tunnel.conn.Write([]byte("to and fro\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := tunnel.br.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	connect(t, d.proxy, "evil.example:443")
	d.hangup()
	<-received
	var page string
	eventually(t, "the delivery to be counted", func() bool {
		page = d.metrics()
		return strings.Contains(page, "sallyport_alert_deliveries_total{") && strings.Contains(page, `sallyport_policy_reloads_total{outcome="applied"} 1`)
	}, d.dump)
	return page
}

// newWebhookSink takes alerts, and says so.
func newWebhookSink(t *testing.T, received chan<- struct{}) string {
	t.Helper()
	_, l := newOrigin(t, "127.0.0.1:0")
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		select {
		case received <- struct{}{}:
		default:
		}
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close() })
	return "http://" + l.Addr().String() + "/hook"
}

// parseMetrics reads a page in the Prometheus text format: our own metrics
// only, with the labels that their samples have.
func parseMetrics(page string) map[string]metric {
	all := make(map[string]metric)
	sample := regexp.MustCompile(`^(sallyport_[a-z_]+?)(_bucket|_sum|_count)?(?:\{(.*)\})? \S+$`)
	label := regexp.MustCompile(`([a-z_]+)="(?:[^"\\]|\\.)*"`)
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "# TYPE sallyport_"); ok {
			name, kind, _ := strings.Cut(rest, " ")
			all["sallyport_"+name] = metric{kind, nil}
			continue
		}
		m := sample.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		got, ok := all[m[1]]
		if name := m[1] + m[2]; !ok {
			m[1], got = name, all[name]
		}
		for _, l := range label.FindAllStringSubmatch(m[3], -1) {
			if l[1] != "le" && !slices.Contains(got.labels, l[1]) {
				got.labels = append(got.labels, l[1])
			}
		}
		slices.Sort(got.labels)
		all[m[1]] = got
	}
	return all
}

// step is one "`file.go` `function`" of docs/walkthrough.md.
var step = regexp.MustCompile("`([a-z]+(?:/[a-z]+)*\\.go)`\\s+`([A-Za-z]+(?:\\.[A-Za-z]+)?)`")

// TestDocsWalkthrough reads the code that docs/walkthrough.md names: each file
// declares the function or type, and each but the first is used by one that was
// named before it, so that no step of the way is left out. Every package that a
// connection passes has its part.
func TestDocsWalkthrough(t *testing.T) {
	text := readText(t, "../docs/walkthrough.md")
	used := make(map[string]bool)
	rooms := make(map[string]int)
	steps := step.FindAllStringSubmatch(text, -1)
	for i, m := range steps {
		file, name := m[1], m[2]
		body, ok := declared(t, filepath.Join("..", file), name)
		if !ok {
			t.Errorf("%s declares no %s", file, name)
			continue
		}
		short := name[strings.LastIndexByte(name, '.')+1:]
		if i > 0 && !used[short] {
			t.Errorf("%s %s is not used by anything named before it", file, name)
		}
		maps.Copy(used, body)
		room, _, _ := strings.Cut(file, "/")
		rooms[room]++
	}
	for room, least := range map[string]int{"cmd": 8, "dnsfilter": 15, "allowlists": 6, "proxy": 20, "alerting": 15} {
		if rooms[room] < least {
			t.Errorf("%s has %d steps, want %d", room, rooms[room], least)
		}
	}
	first, last := "cmd/sallyport/main.go main", "alerting/sinkqueue.go correlator.delivered"
	if len(steps) == 0 || steps[0][1]+" "+steps[0][2] != first || steps[len(steps)-1][1]+" "+steps[len(steps)-1][2] != last {
		t.Errorf("the way goes from %s to %s", first, last)
	}
	// A function in the text that the pattern does not see would go unchecked.
	for _, m := range regexp.MustCompile("`[a-z/]+\\.go`").FindAllString(text, -1) {
		if path := strings.Trim(m, "`"); path != "test/docs_test.go" && !strings.Contains(text, m+" `") && !strings.Contains(text, m+"\n") {
			t.Errorf("%s is named without a function", path)
		}
	}
}

// declared finds a function, method ("Type.name") or type in a file, with the
// identifiers that it uses.
func declared(t *testing.T, path, name string) (uses map[string]bool, ok bool) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Error(err)
		return nil, false
	}
	uses = make(map[string]bool)
	collect := func(n ast.Node) {
		ast.Inspect(n, func(n ast.Node) bool {
			if id, isIdent := n.(*ast.Ident); isIdent {
				uses[id.Name] = true
			}
			return true
		})
	}
	for _, decl := range file.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			if methodName(decl) == name {
				collect(decl.Type)
				collect(decl.Body)
				ok = true
			}
		case *ast.GenDecl:
			for _, spec := range decl.Specs {
				if s, isType := spec.(*ast.TypeSpec); isType && s.Name.Name == name {
					collect(s.Type)
					ok = true
				}
			}
		}
	}
	return uses, ok
}

// methodName is a function's name, with its receiver's type before it.
func methodName(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return f.Name.Name
	}
	receiver := f.Recv.List[0].Type
	if star, ok := receiver.(*ast.StarExpr); ok {
		receiver = star.X
	}
	if id, ok := receiver.(*ast.Ident); ok {
		return id.Name + "." + f.Name.Name
	}
	return f.Name.Name
}
