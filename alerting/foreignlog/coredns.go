package foreignlog

import (
	"bytes"
	"strconv"
	"strings"
	"time"
)

// coreDNS reads what CoreDNS's plugin log writes (coredns.io/plugins/log), in
// the common format or the combined one, which has the opcode at its end:
//
//	[INFO] 10.20.0.7:40123 - 29008 "A IN example.org. udp 41 false 4096" NOERROR qr,rd,ra 68 0.037990251s
//
// The line itself has no time: what collects it has to put one before it.
type coreDNS struct{ stamps }

func looksCoreDNS(line []byte) bool {
	_, quoted, reply, ok := cutCoreDNS(line)
	return ok && len(quoted) >= 7 && len(reply) >= 4
}

// cutCoreDNS gives who asked, the words in quotes and those behind, as far as a
// line is one of a question.
func cutCoreDNS(line []byte) (asker []byte, quoted, reply []string, ok bool) {
	_, said, ok := bytes.Cut(line[:min(len(line), 8192)], []byte("[INFO] "))
	if !ok {
		return nil, nil, nil, false
	}
	head, rest, ok := bytes.Cut(said, []byte(` "`))
	asker, _, dash := bytes.Cut(head, []byte(" - "))
	if !ok || !dash {
		return nil, nil, nil, false
	}
	end := -1
	for i := 0; i < len(rest); i++ { // a quote in a name stands behind a backslash
		if rest[i] == '\\' {
			i++
		} else if rest[i] == '"' {
			end = i
			break
		}
	}
	if end < 0 {
		return nil, nil, nil, false
	}
	return asker, strings.Split(string(rest[:end]), " "), strings.Fields(string(rest[end+1:])), true
}

func (c *coreDNS) parse(line []byte, emit func(Record)) error {
	asker, quoted, reply, ok := cutCoreDNS(line)
	if !ok {
		if bytes.Contains(line, []byte("[")) || bytes.Contains(line, []byte("CoreDNS")) {
			return nil // a plugin's own message
		}
		return errLine
	}
	at, _, timed := c.cut(line)
	i := bytes.LastIndexByte(asker, ':')
	if !timed || i < 0 || len(quoted) < 7 || len(reply) < 4 {
		return errLine
	}
	client, ok := address(bytes.Trim(asker[:i], "[]"))
	took, err := time.ParseDuration(reply[3])
	if !ok || err != nil || took < 0 || took > time.Hour {
		return errLine
	}
	name := strings.Join(quoted[2:len(quoted)-4], " ") // a space stays one behind its backslash
	rcode := reply[0]
	if n, err := strconv.Atoi(rcode); err == nil {
		rcode = "RCODE" + strconv.Itoa(n)
	}
	emit(Record{Time: at.Add(-took), Query: &Query{
		Client: client, Name: strings.TrimSuffix(clip([]byte(name)), "."), Type: dnsType(quoted[0]), Class: class(quoted[1]),
		RCode: clip([]byte(rcode)), Took: took, Refused: rcode == "REFUSED",
	}})
	return nil
}

func (c *coreDNS) flush(func(Record)) {}
