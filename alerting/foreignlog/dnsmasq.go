package foreignlog

import (
	"bytes"
	"strings"
	"time"
)

// dnsmasq reads what dnsmasq(8) logs with --log-queries, and with
// --log-queries=extra, which numbers questions. A question is one line, its
// answer others:
//
//	query[A] www.example from 10.20.0.7
//	forwarded www.example to 192.0.2.53
//	reply www.example is <CNAME>
//	reply good.example is 198.51.100.7
//	config blocked.example is NXDOMAIN
//
// A name stands in lines as it is, but that one which cannot be printed stands
// as "<name unprintable>"; it may hold " from " and " is ", so that a question
// is cut at its last " from ", and an answer by the names that were asked.
type dnsmasq struct {
	stamps
	waiting
	current []*waiter // whose answer is being read
	key     string    // of current, with extra
}

// dnsmasqWait is how long a question waits for its answer.
const dnsmasqWait = 5 * time.Second

func newDnsmasq(o *Options) *dnsmasq {
	return &dnsmasq{stamps: stamps{o}, waiting: newWaiting(dnsmasqWait)}
}

func looksDnsmasq(line []byte) bool {
	_, rest, ok := stamps{&Options{}}.cut(line)
	if ok {
		_, ok = after(rest, "dnsmasq")
	}
	return ok
}

func (d *dnsmasq) parse(line []byte, emit func(Record)) error {
	at, rest, ok := d.cut(line)
	if !ok {
		return errLine
	}
	said, ok := after(rest, "dnsmasq")
	if !ok {
		return errLine
	}
	d.expire(at, emit)
	key, said := cutSerial(said)
	word, rest, _ := bytes.Cut(said, []byte(" "))
	switch {
	case bytes.HasPrefix(word, []byte("query[")) && word[len(word)-1] == ']':
		d.end(emit)
		return d.question(at, key, word[6:len(word)-1], rest, emit)
	case string(word) == "reply", string(word) == "cached", string(word) == "cached-stale", string(word) == "config", len(word) > 0 && word[0] == '/':
		d.answer(key, string(word), rest, emit)
	default: // forwarded, started, ...
		d.end(emit)
	}
	return nil
}

// cutSerial takes "7 10.20.0.7/40123 " off, which log-queries=extra puts there.
func cutSerial(said []byte) (key string, rest []byte) {
	number, rest, ok := bytes.Cut(said, []byte(" "))
	if !ok || len(bytes.Trim(number, "0123456789")) > 0 || len(number) == 0 {
		return "", said
	}
	client, after, ok := bytes.Cut(rest, []byte(" "))
	if !ok || len(client) > 64 || bytes.IndexByte(client, '/') < 0 {
		return "", said
	}
	return string(said[:len(number)+1+len(client)]), after
}

func (d *dnsmasq) question(at time.Time, key string, qtype, rest []byte, emit func(Record)) error {
	i := bytes.LastIndex(rest, []byte(" from "))
	if i < 0 {
		return errLine
	}
	client, ok := address(rest[i+6:])
	if !ok {
		return errLine
	}
	name := clip(rest[:i])
	w := &waiter{at: at, name: name, query: Query{Client: client, Name: presented(name), Type: dnsType(string(qtype))}}
	if w.key = key; key == "" {
		w.key = nameKey(name)
	}
	d.add(w, emit)
	return nil
}

// nameKey finds a question by its name.
func nameKey(name string) string { return "=" + strings.ToLower(name) }

// dnsType is a type as dnsmasq names it: "A", "type=65", "65".
func dnsType(text string) string {
	text = strings.TrimPrefix(text, "type=")
	if text != "" && strings.Trim(text, "0123456789") == "" {
		return "TYPE" + text
	}
	return strings.ToUpper(text[:min(len(text), 16)])
}

// answer reads "NAME is VALUE" for the questions that it answers.
func (d *dnsmasq) answer(key, source string, rest []byte, emit func(Record)) {
	if key != "" && key != d.key {
		d.end(emit)
		d.current, d.key = d.of(key), key
	}
	name, value, ok := d.cutName(key, rest)
	if !ok {
		return
	}
	if key == "" && !d.continues(name) {
		d.end(emit)
		d.current = d.of(nameKey(name))
	}
	over := false
	for _, w := range d.current {
		over = w.answer(source, name, value) || over
	}
	if over {
		d.end(emit)
	}
}

// cutName cuts at the " is " behind a name that was asked, else at the first.
func (d *dnsmasq) cutName(key string, rest []byte) (name, value string, ok bool) {
	for from := 0; ; {
		i := bytes.Index(rest[from:], []byte(" is "))
		if i < 0 {
			break
		}
		at := from + i
		name = clip(rest[:at])
		if key == "" && len(d.of(nameKey(name))) > 0 || key != "" && len(d.current) > 0 && strings.EqualFold(d.current[0].name, name) {
			return name, clip(rest[at+4:]), true
		}
		from = at + 4
	}
	front, back, ok := bytes.Cut(rest, []byte(" is "))
	return clip(front), clip(back), ok
}

// continues reports whether an answer line belongs to the answer under way:
// one more of the same name, or what an alias leads to.
func (d *dnsmasq) continues(name string) bool {
	for _, w := range d.current {
		if w.alias || strings.EqualFold(w.last, name) {
			return true
		}
	}
	return false
}

// answer takes one line of an answer; over reports that it was the last.
func (w *waiter) answer(source, name, value string) (over bool) {
	addr, isAddr := address([]byte(value))
	q := &w.query
	switch {
	case strings.HasPrefix(value, "NODATA-IPv4") && q.Type != "A", strings.HasPrefix(value, "NODATA-IPv6") && q.Type != "AAAA":
		return false
	case isAddr && (q.Type == "A" && !addr.Is4() || q.Type == "AAAA" && !addr.Is6()):
		return false
	}
	isAddr = isAddr && (q.Type == "A" || q.Type == "AAAA" || q.Type == "ANY") // else it is a text that looks like one
	if w.last != "" && !strings.EqualFold(w.last, name) && len(q.CNAMEs) < maxAnswers {
		q.CNAMEs = append(q.CNAMEs, name)
	}
	w.last, w.alias, w.answered = name, value == "<CNAME>", true
	q.Cached = strings.HasPrefix(source, "cached")
	switch {
	case isAddr && source == "config" && addr.IsUnspecified():
		q.RCode, q.Refused = "NOERROR", true
		return true
	case isAddr:
		q.RCode = "NOERROR"
		if len(q.Answers) < maxAnswers {
			q.Answers = append(q.Answers, addr)
		}
	case value == "NXDOMAIN", value == "REFUSED", value == "SERVFAIL":
		q.RCode = value
		q.Refused = source == "config" && value != "SERVFAIL" || value == "REFUSED"
		return true
	case strings.HasPrefix(value, "NODATA"):
		q.RCode, q.Refused = "NOERROR", source == "config"
		return true
	default:
		q.RCode = "NOERROR"
	}
	return false
}

// end emits the questions whose answer was being read.
func (d *dnsmasq) end(emit func(Record)) {
	for _, w := range d.current {
		if w.answered {
			d.done(w, emit)
		}
	}
	d.current, d.key = nil, ""
}

func (d *dnsmasq) flush(emit func(Record)) {
	d.end(emit)
	d.expire(time.Time{}, emit)
}
