//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// about says what the samples of a run are of.
type about struct {
	Date     string            `json:"date"`
	Machine  string            `json:"machine"`
	Rounds   int               `json:"rounds"`
	Length   string            `json:"length"`
	Load     string            `json:"load"` // average, before and after
	Versions map[string]string `json:"versions"`
}

// A ledger collects samples, and writes each down at once.
type ledger struct {
	about   about
	samples []Sample
	file    *os.File // nil if none is wanted
}

// measure runs the chosen figures one after another and reports them.
func measure(ctx context.Context, o options) error {
	list, err := chosen(o.tests)
	if err != nil {
		return err
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max // children inherit what was set by hand
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	w, err := newWorld(o)
	if w != nil {
		defer w.close()
	}
	if err != nil {
		return err
	}
	l := &ledger{about: about{
		Date: time.Now().UTC().Format("2006-01-02 15:04 UTC"), Machine: machine(), Rounds: o.rounds,
		Length: o.length.String(), Load: loadAverage(), Versions: map[string]string{},
	}}
	if o.out != "" {
		if l.file, err = os.Create(o.out); err != nil {
			return err
		}
		defer l.file.Close()
	}
	for _, f := range list {
		if ctx.Err() != nil {
			fmt.Fprintf(os.Stderr, "LEFT OUT: %s, as the time is over\n", f.name)
			continue
		}
		if err := l.figure(ctx, w, f); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		printTable(os.Stdout, f, l.samples)
	}
	l.about.Load += ", " + loadAverage()
	if err := l.writeAbout(); err != nil {
		return err
	}
	return report(o, l.about, l.samples)
}

// figure measures one figure: every subject in turn, round by round.
func (l *ledger) figure(ctx context.Context, w *world, f figure) error {
	names := participants(w.options, f)
	var subjects []*subject
	defer func() {
		for _, s := range subjects {
			s.stop()
		}
	}()
	for _, name := range names {
		s, err := w.layOut(name)
		if errors.Is(err, errMissing) {
			if _, said := l.about.Versions[name]; !said {
				fmt.Fprintln(os.Stderr, "LEFT OUT:", err)
			}
			l.about.Versions[name] = "left out: it could not be had"
			continue
		}
		if err != nil {
			return fmt.Errorf("laying %s out: %w", name, err)
		}
		l.about.Versions[name] = s.version
		if !f.fresh {
			if err := s.start(); err != nil {
				return fmt.Errorf("starting %s: %w", name, err)
			}
			warm(w, f, s)
		}
		subjects = append(subjects, s)
	}
	for round := 1; round <= w.rounds && ctx.Err() == nil; round++ {
		for _, s := range subjects {
			if err := l.repetition(w, f, s, round); err != nil {
				return err
			}
		}
	}
	return nil
}

// participants are the subjects of a figure that are wanted, in their order.
func participants(o options, f figure) []string {
	all := f.subjects
	if i := slices.Index(all, "sallyport"); o.other != "" && i >= 0 {
		all = slices.Insert(slices.Clone(all), i+1, otherName)
	}
	if o.subjects == "" {
		return all
	}
	wanted := strings.Split(o.subjects, ",")
	return slices.DeleteFunc(slices.Clone(all), func(name string) bool { return !slices.Contains(wanted, name) })
}

// warm lets a subject fill its caches and grow to its size.
func warm(w *world, f figure, s *subject) {
	short := *w
	short.length = w.length / 3
	if f.group == "dns" || f.group == "many" {
		hold(s, quiz{next: inTurn(ruleNames(askedNames)), sockets: 1, flying: 4, length: time.Second, most: askedNames})
	}
	if f.group != "reload" && f.name != "reload" {
		f.run(&short, s)
	}
}

// repetition measures one figure on one subject, once.
func (l *ledger) repetition(w *world, f figure, s *subject, round int) error {
	if f.fresh {
		if err := s.start(); err != nil {
			return fmt.Errorf("starting %s: %w", s.name, err)
		}
		defer s.stop()
	}
	sample := f.run(w, s)
	sample.Figure, sample.Subject, sample.Round = f.name, s.name, round
	if sample.Errors > 0 {
		fmt.Fprintf(os.Stderr, "%s, %s, round %d: %d errors: %s\n", f.name, s.name, round, sample.Errors, sample.FirstError)
	}
	l.samples = append(l.samples, sample)
	if l.file == nil {
		return nil
	}
	return json.NewEncoder(l.file).Encode(sample)
}

// writeAbout ends the file of samples with what they are of.
func (l *ledger) writeAbout() error {
	if l.file == nil {
		return nil
	}
	return json.NewEncoder(l.file).Encode(map[string]about{"about": l.about})
}

// after joins a run with one before it, of other figures, whose file was put
// before its own.
func (a about) after(b about) about {
	if b.Date == "" {
		return a
	}
	a.Date = b.Date + " and " + a.Date
	a.Load = b.Load + ", " + a.Load
	versions := maps.Clone(b.Versions)
	maps.Copy(versions, a.Versions)
	a.Versions = versions
	return a
}

// readSamples reads what one or more ledgers wrote.
func readSamples(path string) ([]Sample, about, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, about{}, err
	}
	defer file.Close()
	var samples []Sample
	var what about
	for decoder := json.NewDecoder(file); decoder.More(); {
		var line struct {
			Sample
			About *about `json:"about"`
		}
		if err := decoder.Decode(&line); err != nil {
			return nil, what, err
		}
		if line.About != nil {
			what = line.About.after(what)
			continue
		}
		samples = append(samples, line.Sample)
	}
	return samples, what, nil
}

// machine is processor, cores and kernel.
func machine() string {
	var name syscall.Utsname
	kernel := ""
	if syscall.Uname(&name) == nil {
		for _, c := range name.Release {
			if c == 0 {
				break
			}
			kernel += string(rune(c))
		}
	}
	model := runtime.GOARCH
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "model name"); ok {
			model = strings.TrimSpace(strings.TrimLeft(value, "\t :"))
			break
		}
	}
	return fmt.Sprintf("%s, load on cores %s, subjects on core %s, Linux %s, %s", model, affinity(), subjectCore(), kernel, runtime.Version())
}

// loadAverage is the machine's, over 1 and 5 minutes.
func loadAverage() string {
	text, _ := os.ReadFile("/proc/loadavg")
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return "unknown"
	}
	return fields[0] + " " + fields[1]
}

// affinity is the list of cores that this program may run on.
func affinity() string {
	text, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "Cpus_allowed_list:"); ok {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}
