package alerting_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"sallyport/alerting"
	"sallyport/allowlists"
)

// A story is some records, and exactly the alerts that they raise.
type story struct {
	Title   string        `yaml:"title"`
	Policy  string        `yaml:"policy"`  // the allow list of the pool build, where a detector looks at it
	Learnt  []string      `yaml:"learnt"`  // host:port that the pool has in its baseline; absent: no baseline
	Records []storyRecord `yaml:"records"` //
	Must    []string      `yaml:"must"`    // "alert severity", "* info" aside: exactly these, in any order
	Ordered bool          `yaml:"ordered"` // the order of records at most 1 s apart matters, so they are not shuffled
	NoSkew  bool          `yaml:"noskew"`  // a clock that is 2 s off changes what is raised
}

// A storyRecord is one event. Exactly one of DNS, Conn and System is given.
type storyRecord struct {
	At     time.Duration `yaml:"at"`
	DNS    string        `yaml:"dns"`    // the name asked for
	Conn   string        `yaml:"conn"`   // host:port or address:port
	System string        `yaml:"system"` // the system event
	Times  int           `yaml:"times"`  // that many, each with # in DNS and Conn replaced by its number from 1
	Every  time.Duration `yaml:"every"`  // between them

	Client string `yaml:"client"` // 10.20.0.7
	Pool   string `yaml:"pool"`   // build
	Job    string `yaml:"job"`
	Reason string `yaml:"reason"` // allowed
	Would  string `yaml:"would"`  // in audit

	Type     string   `yaml:"type"`
	By       string   `yaml:"by"`
	Answers  []string `yaml:"answers"`
	Removed  []string `yaml:"removed"`
	Resolver string   `yaml:"resolver"`
	RCode    string   `yaml:"rcode"`
	Search   bool     `yaml:"search"`
	Quiet    bool     `yaml:"quiet"`
	Cached   bool     `yaml:"cached"`
	Limit    string   `yaml:"limit"`

	Via       string   `yaml:"via"` // connect
	IP        string   `yaml:"ip"`
	SNI       string   `yaml:"sni"`
	Method    string   `yaml:"method"`
	Names     []string `yaml:"names"`
	Redialled bool     `yaml:"redialled"`
	Phase     string   `yaml:"phase"` // open, or refused
	Sent      int64    `yaml:"sent"`  // with it a close follows, 1 s later

	Details map[string]any `yaml:"details"`
}

// storyStart is when every story begins.
var storyStart = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

// stories reads every file of testdata/stories; an unknown key is an error.
func stories(t *testing.T) (all []story) {
	t.Helper()
	files, err := filepath.Glob("testdata/stories/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("there are no stories", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var told []story
		decoder := yaml.NewDecoder(bytes.NewReader(data))
		decoder.KnownFields(true)
		if err := decoder.Decode(&told); err != nil && !errors.Is(err, io.EOF) {
			t.Fatalf("%s: %v", file, err)
		}
		all = append(all, told...)
	}
	return all
}

// events makes the events of a story, with ids of their own.
func (s *story) events(t *testing.T) (events []alerting.Event) {
	t.Helper()
	for i := range s.Records {
		for n := range max(1, s.Records[i].Times) {
			r := s.Records[i]
			r.At += time.Duration(n) * r.Every
			number := strconv.Itoa(n + 1)
			r.DNS, r.Conn = strings.ReplaceAll(r.DNS, "#", number), strings.ReplaceAll(r.Conn, "#", number)
			events = append(events, r.events(t, fmt.Sprintf("e%d-%d", i+1, n+1))...)
		}
	}
	slices.SortStableFunc(events, func(a, b alerting.Event) int { return a.Time.Compare(b.Time) })
	return events
}

// events makes the event of a record, and the close of a connection that sent.
func (r *storyRecord) events(t *testing.T, id string) []alerting.Event {
	t.Helper()
	e := alerting.Event{
		Time: storyStart.Add(r.At), ID: id, Policy: 1, Pool: "build", Client: storyAddr(t, "10.20.0.7"),
		Quiet: r.Quiet, Search: r.Search, Cached: r.Cached, Limit: r.Limit, Details: r.Details,
	}
	if r.Client != "" {
		e.Client = storyAddr(t, r.Client)
	}
	if r.Pool != "" {
		e.Pool = r.Pool
	}
	if r.Job != "" {
		e.Job = &allowlists.Job{Repo: "corp/app", RunID: r.Job, Job: "test"}
	}
	e.Reason, e.Would = storyReason(t, r.Reason), storyReason(t, r.Would)
	if e.Reason == allowlists.Allowed || e.Reason == allowlists.AllowedByAudit || e.Reason.Failure() {
		e.Verdict = allowlists.Allow
	}
	switch {
	case r.System != "":
		return []alerting.Event{{Time: e.Time, Kind: alerting.KindSystem, Event: r.System, Details: r.Details, Policy: 1}}
	case r.DNS != "":
		r.asQuestion(t, &e)
		return []alerting.Event{e}
	default:
		return r.asConnection(t, &e)
	}
}

func (r *storyRecord) asQuestion(t *testing.T, e *alerting.Event) {
	t.Helper()
	e.Kind, e.Name, e.Host, e.By, e.Type, e.RCode = alerting.KindDNS, r.DNS+".", r.DNS, "client", "A", "NOERROR"
	if r.By != "" {
		e.By = r.By
	}
	if r.Type != "" {
		e.Type = r.Type
	}
	if e.Verdict != allowlists.Allow {
		e.RCode = "NXDOMAIN"
	}
	if r.RCode != "" {
		e.RCode = r.RCode
	}
	for _, a := range r.Answers {
		e.Answers = append(e.Answers, storyAddr(t, a))
	}
	for _, a := range r.Removed {
		e.Removed = append(e.Removed, storyAddr(t, a))
	}
	if r.Resolver != "" {
		e.Resolver = storyAddr(t, r.Resolver)
	}
}

func (r *storyRecord) asConnection(t *testing.T, e *alerting.Event) []alerting.Event {
	t.Helper()
	colon := strings.LastIndexByte(r.Conn, ':')
	port, err := strconv.ParseUint(r.Conn[colon+1:], 10, 16)
	if err != nil {
		t.Fatalf("%q is not host:port", r.Conn)
	}
	e.Kind, e.Via, e.Port, e.SNI, e.Method, e.Names, e.Redialled = alerting.KindConn, "connect", uint16(port), r.SNI, r.Method, r.Names, r.Redialled
	if r.Via != "" {
		e.Via = r.Via
	}
	if host := strings.Trim(r.Conn[:colon], "[]"); r.IP != "" {
		e.Host, e.IP = host, storyAddr(t, r.IP)
	} else if addr, err := netip.ParseAddr(host); err == nil {
		e.IP = addr
		if e.Via == "connect" || e.Via == "http" {
			e.Host = host
		}
	} else {
		e.Host = host
	}
	if e.Phase = r.Phase; e.Phase == "" {
		e.Phase = alerting.PhaseOpen
		if e.Verdict != allowlists.Allow {
			e.Phase = alerting.PhaseRefused
		}
	}
	if r.Sent == 0 {
		return []alerting.Event{*e}
	}
	end := *e
	end.Phase, end.Sent, end.Time = alerting.PhaseClose, r.Sent, e.Time.Add(time.Second)
	if e.Verdict != allowlists.Allow && e.Reason == allowlists.UploadLimit { // it was open before
		e.Verdict, e.Reason, e.Phase = allowlists.Allow, allowlists.Allowed, alerting.PhaseOpen
	}
	return []alerting.Event{*e, end}
}

func storyAddr(t *testing.T, text string) netip.Addr {
	t.Helper()
	addr, err := netip.ParseAddr(text)
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

func storyReason(t *testing.T, name string) allowlists.Reason {
	t.Helper()
	if name == "" {
		return allowlists.Allowed
	}
	reason, ok := allowlists.ParseReason(name)
	if !ok {
		t.Fatalf("%q is no reason", name)
	}
	return reason
}

// run takes events and tells the alerts, sorted, as "alert severity".
func (s *story) run(t *testing.T, events []alerting.Event) (raised []string) {
	t.Helper()
	config := alerting.OfflineConfig{Ended: func(a alerting.Alert) {
		if len(a.Evidence) == 0 && a.Alert != alerting.AlertPolicy {
			t.Errorf("%s has no evidence", a.Alert)
		}
		raised = append(raised, a.Alert+" "+a.Severity.String())
	}}
	if s.Policy != "" {
		config.Policy = storyPolicy(t, s.Policy)
	}
	if s.Learnt != nil {
		config.Store = &alerting.MemoryStore{}
		config.Alerts.Baseline.File = filepath.Join(t.TempDir(), "baseline.jsonl")
		var lines strings.Builder
		for _, to := range s.Learnt {
			fmt.Fprintf(&lines, "{\"pool\":\"build\",\"destination\":%q}\n", to)
		}
		if err := os.WriteFile(config.Alerts.Baseline.File, []byte(lines.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	o, err := alerting.NewOffline(config)
	if err != nil {
		t.Fatal(err)
	}
	for i := range events {
		if err := o.Take(&events[i]); err != nil {
			t.Fatal(err)
		}
	}
	// A quiet end, so that what waits for its time is told.
	if err := o.Take(&alerting.Event{Kind: alerting.KindSystem, Event: "quiet", Time: events[len(events)-1].Time.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(raised)
	return slices.Compact(raised)
}

// storyPolicy loads a policy whose pool build has an allow list.
func storyPolicy(t *testing.T, allow string) *allowlists.Policy {
	t.Helper()
	text := "pools: {build: {sources: [10.20.0.0/16], allow: " + allow + "}}\n"
	loaded, report := allowlists.Load([]allowlists.Source{{Name: "story.yaml", Text: []byte(text)}}, func(string) (string, bool) { return "", false }, storyStart)
	if err := report.Err(); err != nil {
		t.Fatal(err)
	}
	return loaded.Policy
}

// want is what the story must raise, sorted.
func (s *story) want() []string {
	want := slices.Clone(s.Must)
	slices.Sort(want)
	return want
}

// TestStories runs each story as it is; read back from its lines; with records
// of one second shuffled; and with the clock of questions off by two seconds
// either way.
func TestStories(t *testing.T) {
	titles := make(map[string]bool)
	for _, s := range stories(t) {
		if s.Title == "" || titles[s.Title] {
			t.Errorf("a story needs a title of its own: %q", s.Title)
		}
		titles[s.Title] = true
		t.Run(s.Title, func(t *testing.T) {
			hold := func(how string, events []alerting.Event) {
				t.Helper()
				if got := s.run(t, events); !slices.Equal(got, s.want()) {
					t.Errorf("%s: raised %v, must raise %v", how, got, s.want())
				}
			}
			events := s.events(t)
			hold("as told", slices.Clone(events))
			hold("read back", readBack(t, events))
			if !s.Ordered {
				for seed := range uint64(5) {
					hold(fmt.Sprintf("shuffled by %d", seed), shuffled(events, seed))
				}
			}
			for _, skew := range []time.Duration{-2 * time.Second, 2 * time.Second} {
				if !s.NoSkew {
					hold(fmt.Sprintf("questions %s off", skew), skewed(events, skew))
				}
			}
		})
	}
}

// TestStoriesWithoutARecord drops each record of each story: no alert of high
// severity or more comes that was not there, but direct-ip, which cannot know of
// a refusal or an answer that is not in the log.
func TestStoriesWithoutARecord(t *testing.T) {
	for _, s := range stories(t) {
		t.Run(s.Title, func(t *testing.T) {
			events := s.events(t)
			if len(events) > 40 || len(events) < 2 {
				return // one of many alike, or all there is
			}
			for i := range events {
				for _, raised := range s.run(t, slices.Delete(slices.Clone(events), i, i+1)) {
					severe := !strings.HasSuffix(raised, " medium") && !strings.HasSuffix(raised, " info")
					name, _, _ := strings.Cut(raised, " ")
					if severe && name != alerting.AlertDirectIP && !slices.ContainsFunc(s.Must, func(m string) bool { return strings.HasPrefix(m, name) }) {
						t.Errorf("without record %d it raises %s", i+1, raised)
					}
				}
			}
		})
	}
}

// TestStoriesTogether runs all stories without baseline and policy at once, each
// with a client of its own in a pool of its own: nothing crosses.
func TestStoriesTogether(t *testing.T) {
	var all []alerting.Event
	want := make(map[string][]string)
	for i, s := range stories(t) {
		if s.Learnt != nil || s.Policy != "" {
			continue
		}
		pool := fmt.Sprintf("pool%d", i)
		events := s.events(t)
		for j := range events {
			if events[j].Kind == alerting.KindSystem || events[j].Pool != "build" {
				events = nil
				break
			}
			events[j].Pool, events[j].ID = pool, pool+events[j].ID
		}
		if events == nil {
			continue
		}
		all, want[pool] = append(all, events...), s.want()
	}
	slices.SortStableFunc(all, func(a, b alerting.Event) int { return a.Time.Compare(b.Time) })
	got := make(map[string][]string)
	o, err := alerting.NewOffline(alerting.OfflineConfig{Ended: func(a alerting.Alert) {
		got[a.Pool] = append(got[a.Pool], a.Alert+" "+a.Severity.String())
	}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		if err := o.Take(&all[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.Take(&alerting.Event{Kind: alerting.KindSystem, Event: "quiet", Time: all[len(all)-1].Time.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	if len(want) < 20 {
		t.Errorf("only %d stories ran together", len(want))
	}
	for pool, must := range want {
		slices.Sort(got[pool])
		if raised := slices.Compact(got[pool]); !slices.Equal(raised, must) {
			t.Errorf("%s raised %v, must raise %v", pool, raised, must)
		}
	}
}

// readBack is what a log would give of events.
func readBack(t *testing.T, events []alerting.Event) []alerting.Event {
	t.Helper()
	back := make([]alerting.Event, len(events))
	for i := range events {
		var err error
		if back[i], err = alerting.ParseEvent(alerting.LineForTest(&events[i])); err != nil {
			t.Fatal(err)
		}
	}
	return back
}

// shuffled changes the order of what lies within a second, not their times.
func shuffled(events []alerting.Event, seed uint64) []alerting.Event {
	random := rand.New(rand.NewPCG(seed, 1))
	out := slices.Clone(events)
	for from := 0; from < len(out); {
		to := from
		for to < len(out) && out[to].Time.Sub(out[from].Time) <= time.Second/2 {
			to++
		}
		random.Shuffle(to-from, func(i, j int) { out[from+i], out[from+j] = out[from+j], out[from+i] })
		from = to
	}
	return out
}

// skewed moves the questions in time.
func skewed(events []alerting.Event, by time.Duration) []alerting.Event {
	out := slices.Clone(events)
	for i := range out {
		if out[i].Kind == alerting.KindDNS {
			out[i].Time = out[i].Time.Add(by)
		}
	}
	slices.SortStableFunc(out, func(a, b alerting.Event) int { return a.Time.Compare(b.Time) })
	return out
}
