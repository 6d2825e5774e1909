package foreignlog

import (
	"bytes"
	"strconv"
	"strings"
	"time"
)

// unbound reads what Unbound logs with log-queries, log-replies and
// log-local-actions (unbound.conf(5)), with log-tag-queryreply or without:
//
//	info: 10.20.0.7 good.example. A IN                          a question
//	info: 10.20.0.7 good.example. A IN NOERROR 0.000259 0 57    its reply: code, seconds, cached, bytes
//	info: blocked.example. always_nxdomain 10.20.0.7@41636 blocked.example. A IN
//
// A question and its reply are one record. Names are printed by Unbound with
// anything unusual as "?", so that fields never hold a space.
type unbound struct {
	stamps
	waiting
}

// unboundWait is how long a question waits for its reply.
const unboundWait = 10 * time.Second

func newUnbound(o *Options) *unbound {
	return &unbound{stamps: stamps{o}, waiting: newWaiting(unboundWait)}
}

// unboundTags begin what may be a question or a reply.
var unboundTags = []string{"info: ", "query: ", "reply: "}

// said takes time and program off a line and gives what is behind the tag.
func (u stamps) said(line []byte) (at time.Time, tagged []byte, ok bool) {
	at, rest, ok := u.cut(line)
	if !ok {
		return at, nil, false
	}
	rest, ok = after(rest, "unbound")
	if !ok {
		return at, nil, false
	}
	if len(rest) > 0 && rest[0] == '[' { // through syslog: "unbound[7]: [7:0] info: "
		if _, tail, ok := bytes.Cut(rest, []byte("] ")); ok {
			rest = tail
		}
	}
	return at, rest, true
}

func looksUnbound(line []byte) bool {
	_, _, ok := stamps{&Options{}}.said(line)
	return ok
}

func (u *unbound) parse(line []byte, emit func(Record)) error {
	at, rest, ok := u.said(line)
	if !ok {
		return errLine
	}
	u.expire(at, emit)
	for _, tag := range unboundTags {
		if words, ok := bytes.CutPrefix(rest, []byte(tag)); ok {
			u.words(at, bytes.Fields(words[:min(len(words), 4096)]), emit)
		}
	}
	return nil
}

// words reads the fields of a question, a reply or a local action; of anything
// else nothing comes.
func (u *unbound) words(at time.Time, words [][]byte, emit func(Record)) {
	if len(words) < 4 {
		return
	}
	if client, ok := address(words[0]); ok {
		switch len(words) {
		case 4:
			u.add(&waiter{at: at, key: unboundKey(words), query: unboundQuery(words)}, emit)
		case 8:
			if u.reply(at, words, emit); client.IsValid() {
				return
			}
		}
		return
	}
	// ... ACTION ADDRESS@PORT NAME TYPE CLASS
	n := len(words)
	if n < 5 {
		return
	}
	asker, _, ok := bytes.Cut(words[n-4], []byte("@"))
	if _, isAddr := address(asker); !ok || !isAddr || !unboundRefusals[string(words[n-5])] {
		return
	}
	for _, w := range u.of(unboundKey([][]byte{asker, words[n-3], words[n-2], words[n-1]})) {
		w.query.Refused = true
	}
}

// unboundRefusals are the local-zone types and response policy actions that
// refuse: unbound.conf(5), "local-zone" and "RPZ".
var unboundRefusals = map[string]bool{
	"deny": true, "refuse": true, "inform_deny": true, "block_a": true, "always_refuse": true, "always_deny": true,
	"always_nxdomain": true, "always_nodata": true, "always_null": true, "rpz-nxdomain": true, "rpz-nodata": true, "rpz-drop": true,
}

// unboundKey finds a question by client, name and type.
func unboundKey(words [][]byte) string {
	return strings.ToLower(clip(bytes.Join(words[:3], []byte(" "))))
}

func unboundQuery(words [][]byte) Query {
	client, _ := address(words[0])
	return Query{Client: client, Name: strings.TrimSuffix(clip(words[1]), "."), Type: dnsType(string(words[2])), Class: class(string(words[3]))}
}

// class is the number of a class by its name; 0 for one without.
func class(text string) uint16 {
	switch text {
	case "IN":
		return 1
	case "CH":
		return 3
	case "HS":
		return 4
	}
	n, _ := strconv.ParseUint(strings.TrimPrefix(text, "CLASS"), 10, 16)
	return uint16(n)
}

// reply completes a question, or stands alone where questions are not logged.
func (u *unbound) reply(at time.Time, words [][]byte, emit func(Record)) {
	query := unboundQuery(words)
	took, err := strconv.ParseFloat(string(words[5][:min(len(words[5]), 24)]), 64)
	if err != nil || string(words[1]) == "null" {
		return
	}
	query.Took = seconds(took)
	query.RCode, query.Cached = clip(words[4]), string(words[6]) == "1"
	began := at
	if asked := u.of(unboundKey(words)); len(asked) > 0 {
		w := asked[0]
		w.query.Took, w.query.RCode, w.query.Cached = query.Took, query.RCode, query.Cached
		w.query.Refused = w.query.Refused || query.RCode == "REFUSED"
		u.done(w, emit)
		return
	}
	if query.Took >= unboundWait { // the question went without its reply
		return
	}
	query.Refused = query.RCode == "REFUSED"
	emit(Record{Time: began.Add(-query.Took), Query: &query})
}

func (u *unbound) flush(emit func(Record)) { u.expire(time.Time{}, emit) }
