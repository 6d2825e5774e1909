package report_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"sallyport/alerting/eventtest"
	"sallyport/alerting/foreignlog"
	"sallyport/alerting/report"
	"sallyport/allowlists"
)

var update = flag.Bool("update", false, "write the expected output anew")

// formats are the ways to write a report.
var formats = []struct {
	name  string
	write func(*report.Report, *bytes.Buffer) error
}{
	{"md", func(r *report.Report, b *bytes.Buffer) error { return r.WriteMarkdown(b) }},
	{"html", func(r *report.Report, b *bytes.Buffer) error { return r.WriteHTML(b) }},
	{"json", func(r *report.Report, b *bytes.Buffer) error { return r.WriteJSON(b) }},
}

// policy reads the configuration of the story.
func policy(t testing.TB) *allowlists.Policy {
	t.Helper()
	text, err := os.ReadFile("testdata/story.yaml")
	if err != nil {
		t.Fatal(err)
	}
	file, problems := allowlists.Load([]allowlists.Source{{Name: "story.yaml", Text: text}}, os.LookupEnv, time.Now())
	if problems.Failed() {
		t.Fatal(problems.Err())
	}
	return file.Policy
}

// of makes a report of a log.
func of(t testing.TB, log string, config report.Config) *report.Report {
	t.Helper()
	source, err := foreignlog.Probe("-", foreignlog.FormatNamed("sallyport"), foreignlog.Options{}, strings.NewReader(log))
	if err != nil {
		t.Fatal(err)
	}
	config.Sources = []*foreignlog.Source{source}
	r, err := report.Run(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// story is the log that the golden files are made of.
func story(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile("testdata/story.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// written is a report in a format.
func written(t testing.TB, r *report.Report, format string) string {
	t.Helper()
	var b bytes.Buffer
	for _, f := range formats {
		if f.name == format {
			if err := f.write(r, &b); err != nil {
				t.Fatal(err)
			}
		}
	}
	return b.String()
}

// TestStory: the story's log gives story.md, story.html and story.json.
func TestStory(t *testing.T) {
	log := story(t)
	var events []string
	for line := range strings.Lines(log) {
		if line[0] == '{' {
			events = append(events, line)
		}
	}
	eventtest.ValidateLines(t, strings.NewReader(strings.Join(events, "")))
	for _, f := range formats {
		got, golden := written(t, of(t, log, report.Config{Policy: policy(t)}), f.name), "testdata/story."+f.name
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s is not as it was (-update writes it anew):\n%s", golden, got)
		}
	}
}

// TestScopes: what belongs to a job, a pool and a period, and nothing else.
func TestScopes(t *testing.T) {
	at := func(text string) time.Time {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	for _, c := range []struct {
		name                           string
		config                         report.Config
		conns, questions, alerts, syst int
	}{
		{"all", report.Config{}, 15, 4, 4, 5},
		{"a client", report.Config{Job: "10.20.0.7"}, 13, 3, 3, 3},
		{"a run", report.Config{Job: "4711"}, 13, 3, 3, 3},
		{"no such run", report.Config{Job: "4712"}, 0, 0, 0, 0},
		{"a pool", report.Config{Pool: "lint"}, 2, 1, 1, 4},
		{"a job in another pool", report.Config{Job: "4711", Pool: "lint"}, 0, 0, 0, 0},
		{"from then on", report.Config{Since: at("2026-11-23T12:09:00Z")}, 2, 1, 1, 2},
		{"until then", report.Config{Until: at("2026-11-23T12:09:00Z")}, 13, 3, 3, 3},
	} {
		r := of(t, story(t), c.config)
		if r.Totals.Connections != c.conns || r.Totals.Questions != c.questions || len(r.Alerts) != c.alerts || len(r.System) != c.syst {
			t.Errorf("%s: %d connections, %d questions, %d alerts, %d system events", c.name, r.Totals.Connections, r.Totals.Questions, len(r.Alerts), len(r.System))
		}
		valid(t, written(t, r, "json"))
		var rows report.Traffic
		for _, d := range r.Destinations {
			rows.Connections, rows.Refused, rows.Sent = rows.Connections+d.Connections, rows.Refused+d.Refused, rows.Sent+d.Sent
		}
		if rows.Connections != r.Totals.Connections || rows.Refused != r.Totals.Refused || rows.Sent != r.Totals.Sent {
			t.Errorf("%s: the rows have %+v, the totals %+v", c.name, rows, r.Totals.Traffic)
		}
	}
}

// TestLacks: what a log does not show is said.
func TestLacks(t *testing.T) {
	for _, c := range []struct{ log, want string }{
		{"", "The log has no event at all."},
		{line("a.example"), "The log begins at 2026-11-23 12:00:00 UTC within a run of the daemon"},
		{line("a.example") + "nothing\n", "1 line could not be read, being no events."},
		{line("a.example") + `{"v":2,"time":"2026-11-23T12:00:00.000000Z","kind":"conn"}` + "\n", "1 line of another version"},
		{system("started") + line("a.example") + system("started"), "The daemon started twice and was told to stop 0 times: it was killed"},
		{strings.Replace(line("a.example"), `"deny","reason":"not-in-allowlist","ms":1.000,"phase":"refused"`, `"allow","reason":"allowed","ms":1.000,"phase":"open"`, 1), "The log has no end of 1 connection"},
	} {
		r := of(t, c.log, report.Config{})
		if !strings.Contains(fmt.Sprint(r.Lacks), c.want) {
			t.Errorf("%q is not said, but %v", c.want, r.Lacks)
		}
		for _, f := range formats {
			if text := written(t, r, f.name); !strings.Contains(text, c.want) {
				t.Errorf("%s does not say %q", f.name, c.want)
			}
		}
	}
	whole := of(t, system("started")+line("a.example")+system("stopping"), report.Config{})
	if len(whole.Lacks) > 0 {
		t.Errorf("a whole log lacks %v", whole.Lacks)
	}
}

// line is a refused connection.
func line(host string) string {
	text, _ := json.Marshal(host)
	return `{"v":1,"time":"2026-11-23T12:00:00.000000Z","kind":"conn","id":"k3v9x2m4p7qa","pool":"build","client":"10.20.0.7","via":"connect","host":` + string(text) +
		`,"port":443,"verdict":"deny","reason":"not-in-allowlist","ms":1.000,"phase":"refused"}` + "\n"
}

// system is an event of the daemon's own.
func system(name string) string {
	return `{"v":1,"time":"2026-11-23T12:00:00.000000Z","kind":"system","event":"` + name + `"}` + "\n"
}

// TestBounds: of a log with more destinations than have rows nothing is lost in
// the totals, and Markdown stays below what GitHub takes.
func TestBounds(t *testing.T) {
	var log strings.Builder
	log.WriteString(system("started"))
	const many = 10500
	long := strings.Repeat("\u65e5|`<", 60)
	for i := range many {
		log.WriteString(line(fmt.Sprintf("%d.%s", i, long)))
	}
	r := of(t, log.String(), report.Config{})
	if len(r.Destinations) != 10000 || r.More == nil || r.More.Connections != 500 || r.Totals.Refused != many || len(r.Refusals) != 10000 || r.MoreRefusals != 500 {
		t.Errorf("%d destinations, more %+v, totals %+v, %d refusals, more %d", len(r.Destinations), r.More, r.Totals, len(r.Refusals), r.MoreRefusals)
	}
	md := written(t, r, "md")
	if len(md) > 1<<20 {
		t.Errorf("%d bytes of Markdown", len(md))
	}
	for _, want := range []string{"50 of 10000 rows are shown; 9950 rows more with 9950 events.", "500 events of such are not in these tables", "Beyond the first 10000 destinations"} {
		if !strings.Contains(md, want) {
			t.Errorf("Markdown does not say %q", want)
		}
	}
}

// schema is docs/report.schema.json, compiled once.
var schema = sync.OnceValues(func() (*jsonschema.Schema, error) {
	text, err := os.ReadFile("../../docs/report.schema.json")
	if err != nil {
		return nil, err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	if err := compiler.AddResource("report.schema.json", doc); err != nil {
		return nil, err
	}
	return compiler.Compile("report.schema.json")
})

// valid holds a report's JSON against docs/report.schema.json.
func valid(t testing.TB, text string) {
	t.Helper()
	compiled, err := schema()
	if err != nil {
		t.Fatal(err)
	}
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err == nil {
		err = compiled.Validate(value)
	}
	if err != nil {
		t.Error(err)
	}
}

// TestTheSchemaIsStrict: it takes the story, and no key that it does not name.
func TestTheSchemaIsStrict(t *testing.T) {
	valid(t, written(t, of(t, story(t), report.Config{Policy: policy(t)}), "json"))
	text, err := os.ReadFile("../../docs/report.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var walk func(path string, value any)
	walk = func(path string, value any) {
		switch value := value.(type) {
		case map[string]any:
			if value["properties"] != nil && value["additionalProperties"] != false {
				t.Errorf("%s takes any key", path)
			}
			for key, inner := range value {
				walk(path+"/"+key, inner)
			}
		case []any:
			for _, inner := range value {
				walk(path, inner)
			}
		}
	}
	var whole any
	if err := json.Unmarshal(text, &whole); err != nil {
		t.Fatal(err)
	}
	walk("", whole)
}
