package test

import (
	"encoding/json"
	"os"
	"strconv"
	"strings"
)

// human is the list that a person wrote, as lines of YAML, and how many.
func (w *buildWorld) human() (lines string, n int) {
	w.t.Helper()
	for line := range strings.Lines(readText(w.t, "testdata/realbuilds.allow")) {
		rule := strings.TrimSpace(line)
		if rule == "" || rule[0] == '#' {
			continue
		}
		rules := []string{rule}
		for name, hosts := range w.hosts {
			if port, ok := strings.CutPrefix(rule, name); ok {
				rules = nil
				for _, h := range hosts {
					rules = append(rules, h.name+port)
				}
			}
		}
		for _, r := range rules {
			lines += "      - " + strconv.Quote(r) + "\n"
			n++
		}
	}
	return lines, n
}

// A replayed is what replay found, as far as this test looks at it.
type replayed struct {
	Decisions int
	Refused   replayedChanges `json:"newly_refused"`
	Allowed   replayedChanges `json:"newly_allowed"`
}

type replayedChanges struct {
	Decisions    int
	Destinations []struct{ Kind, Host, IP, Was, Reason string }
}

// replay has sallyport replay a log with every pool enforcing.
func (w *buildWorld) replay(args ...string) (r replayed, code int) {
	w.t.Helper()
	out := command(w.t, w.d.dir, append([]string{"replay", "--enforce"}, args...)...)
	if err := json.Unmarshal([]byte(out.stdout), &r); err != nil {
		w.t.Fatalf("%v: %v\n%s%s", args, err, out.stdout, out.stderr)
	}
	return r, out.code
}

// check holds what suggest makes of the whole log against a person's list.
func (w *buildWorld) check(builds, all string) {
	t := w.t
	t.Helper()
	text := readText(t, w.d.path("sallyport.yaml"))
	person, most := w.human()
	for name, text := range map[string]string{"suggested.yaml": text, "person.yaml": strings.Replace(text, listedBefore, listedBefore+person, 1)} {
		if err := os.WriteFile(w.d.path(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	said := command(t, w.d.dir, "suggest", "-c", "suggested.yaml", "--write", all)
	suggested := readText(t, w.d.path("suggested.yaml"))
	lines := strings.Count(suggested, "\n      - ") - strings.Count(text, "\n      - ")
	if said.code != 0 || lines == 0 || float64(lines) > 1.2*float64(most) {
		t.Errorf("exit code %d, %d lines where a person wrote %d\n%s\n%s", said.code, lines, most, said.stderr, said.stdout)
	}
	for _, list := range []string{"person.yaml", "suggested.yaml"} {
		if r, code := w.replay("-c", list, builds); code != 0 || r.Decisions < 20 {
			t.Errorf("%s breaks builds: exit code %d\n%+v\n%s", list, code, r, said.stdout)
		}
	}
	if r, _ := w.replay("-c", "suggested.yaml", "--old", "person.yaml", all); r.Refused.Decisions+r.Allowed.Decisions > 0 {
		t.Errorf("what is suggested is other than what a person allowed: %+v", r)
	}
	w.checkPlanted(all)
	if t.Failed() {
		t.Log(suggested, said.stderr)
	}
}

// checkPlanted holds that of the whole log just the ways out are refused, all of
// them.
func (w *buildWorld) checkPlanted(all string) {
	w.t.Helper()
	r, code := w.replay("-c", "suggested.yaml", all)
	planted := make(map[string]bool)
	for _, d := range r.Refused.Destinations {
		switch {
		case d.Host == w.drop.ip || d.IP == w.drop.ip:
			planted["address"] = true
		case d.Host == "artifact5.example":
			planted["name"] = true
		case strings.HasSuffix(d.Host, ".drop.example"):
			planted["questions"] = true
		default:
			w.t.Errorf("a build is refused %+v", d)
		}
	}
	if code != 3 || len(planted) != 3 {
		w.t.Errorf("exit code %d; of what was planted only this is refused: %v", code, planted)
	}
}
