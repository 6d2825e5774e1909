package test

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// asked asks the daemon over UDP and gives the answers' data.
func (d *daemon) asked(name string, qtype uint16) []string {
	d.t.Helper()
	client := dns.Client{Timeout: patience}
	reply, _, err := client.Exchange(new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype), d.dns)
	if err != nil {
		d.t.Fatal(err)
	}
	var data []string
	for _, rr := range reply.Answer {
		data = append(data, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	return data
}

// The names of an address come from the book of answers and from nowhere else.
func TestTheBookOfAnswersSurvivesKill(t *testing.T) {
	t.Parallel()
	z := newZone(t, "ssh.corp.example. 60 IN A 93.184.216.34", "other.corp.example. 60 IN A 93.184.216.34", "gone.corp.example. 60 IN A 93.184.216.35")
	both := "  build: {sources: [127.0.0.0/8], allow: [ssh.corp.example, other.corp.example, gone.corp.example]}"
	d := start(t, config{upstream: z.addr, pools: both})
	started := func(n int) event {
		t.Helper()
		var all []event
		eventually(t, "a daemon that started", func() bool {
			all = slices.DeleteFunc(d.events(), func(e event) bool { return e.text("event") != "started" })
			return len(all) == n
		}, d.dump)
		return all[n-1]
	}
	kept := func(e event) any { return e["details"].(map[string]any)["book_kept"] }
	if got := kept(started(1)); got != false {
		t.Errorf("the first start has a kept book: %v", got)
	}
	const address, gone = "34.216.184.93.in-addr.arpa", "35.216.184.93.in-addr.arpa"
	if got := d.asked(address, dns.TypePTR); len(got) > 0 {
		t.Fatalf("before any question the address has %v", got)
	}
	for _, name := range []string{"ssh.corp.example", "other.corp.example", "gone.corp.example"} {
		if got := d.asked(name, dns.TypeA); len(got) != 1 {
			t.Fatalf("%s has %v", name, got)
		}
	}
	file := d.path("state/book.jsonl")
	in := func() string { raw, _ := os.ReadFile(file); return string(raw) }
	eventually(t, "the last answer in the file", func() bool { return strings.Contains(in(), "gone.corp.example") }, in)
	before := len(z.questions())
	d.kill()
	d.write(z.addr, "  build: {sources: [127.0.0.0/8], allow: [ssh.corp.example, other.corp.example]}")
	d.run()
	if got := kept(started(2)); got != true {
		t.Errorf("the second start has no kept book: %v", got)
	}
	if got := d.asked(address, dns.TypePTR); strings.Join(got, " ") != "other.corp.example. ssh.corp.example." {
		t.Errorf("after kill -9 the address has %v", got)
	}
	if got := d.asked(gone, dns.TypePTR); len(got) > 0 {
		t.Errorf("a name that is no longer allowed still has an address: %v", got)
	}
	if after := z.questions(); len(after) != before {
		t.Errorf("the upstream was asked %v", after[before:])
	}

	d.kill() // in the middle of a line, and of the file
	raw := in()
	cut := strings.Replace(raw, `{"pool"`, "\x00\x00", 1)
	if err := os.WriteFile(file, []byte(cut+`{"pool":"bu`), 0o600); err != nil {
		t.Fatal(err)
	}
	d.run()
	if got := kept(started(3)); got != false {
		t.Errorf("a damaged book is taken for whole: %v", got)
	}
	if aside, err := os.ReadFile(file + ".bad"); err != nil || !strings.Contains(string(aside), "\x00") {
		t.Errorf("the damaged book is not set aside: %v", err)
	}
	if got := d.asked("ssh.corp.example", dns.TypeA); len(got) != 1 {
		t.Errorf("after a damaged book the daemon answers %v", got)
	}
	d.stop() // and what came last is there after an orderly end, too
	d.run()
	if got := d.asked(address, dns.TypePTR); !slices.Contains(got, "ssh.corp.example.") {
		t.Errorf("after an orderly end the address has %v", got)
	}
}

// What the daemon can write is no more than needed by others.
func TestTheKeptBookIsPrivate(t *testing.T) {
	t.Parallel()
	z := newZone(t, "ssh.corp.example. 60 IN A 93.184.216.34")
	d := start(t, config{upstream: z.addr, pools: "  build: {sources: [127.0.0.0/8], allow: [ssh.corp.example]}"})
	info, err := os.Stat(d.path("state/book.jsonl"))
	if err != nil || info.Mode() != 0o600 || time.Since(info.ModTime()) > time.Hour {
		t.Errorf("%v, %v", info, err)
	}
}
