package alerting

import (
	"net/netip"
	"strconv"
	"sync"
	"time"

	"sallyport/allowlists"
)

// maxLine is the longest event line in bytes, its newline included.
const maxLine = 16 << 10

// bounds are the most bytes or items of one value, before escaping.
type bounds struct {
	name    int // host names and what stands for one: a DNS name may take 1,020 when printed
	text    int // everything else
	items   int // of a list
	details int // of a system event
}

// The bounds of every line, and those of a line that would still be over
// maxLine with them. Escaping makes a byte six at most, so a tight line fits.
var (
	wideBounds  = bounds{name: 1024, text: 1024, items: 64, details: 64}
	tightBounds = bounds{name: 64, text: 64, items: 2, details: 8}
)

// An encoder makes lines. It is not safe for concurrent use; encoders come
// from encoders.
type encoder struct {
	out    []byte // the line
	bounds bounds
	// date is the text of second, in seconds since 1970, as most lines have the
	// one of the line before. Empty: no second's.
	date   []byte
	second int64
}

// encoders hold encoders that nobody uses.
var encoders = sync.Pool{New: func() any { return new(encoder) }}

// encode makes the line of e, with its newline: one JSON object, the fields in
// the order of docs/events.md, never over maxLine. The line is valid until the
// encoder's next call.
func (w *encoder) encode(e *Event) []byte {
	if cap(w.out) > 4*maxLine {
		w.out = nil
	}
	w.bounds = wideBounds
	w.render(e)
	if len(w.out) > maxLine {
		w.bounds = tightBounds
		w.render(e)
	}
	return w.out
}

func (w *encoder) render(e *Event) {
	w.out = append(w.out[:0], `{"v":`...)
	w.out = strconv.AppendInt(w.out, eventVersion, 10)
	w.time("time", e.Time)
	w.text("kind", e.Kind)
	if e.Kind != KindSystem {
		w.text("id", e.ID)
	}
	w.optional("pool", e.Pool)
	w.addr("client", e.Client)
	w.optional("iface", e.Iface)
	if e.Policy != 0 {
		w.out = strconv.AppendUint(w.key("policy"), e.Policy, 10)
	}
	w.job(e.Job)
	switch e.Kind {
	case KindDNS:
		w.dns(e)
	case KindConn:
		w.conn(e)
	case KindAlert:
		w.alert(e)
	case KindSystem:
		w.text("event", e.Event)
		w.details(e.Details)
	}
	w.out = append(w.out, '}', '\n')
}

func (w *encoder) dns(e *Event) {
	w.text("by", e.By)
	w.name("name", e.Name)
	w.text("type", e.Type)
	w.decision(e)
	w.text("rcode", e.RCode)
	w.out = appendAddrs(w.key("answers"), e.Answers, w.bounds.items)
	if len(e.Removed) > 0 {
		w.out = appendAddrs(w.key("removed"), e.Removed, w.bounds.items)
	}
	w.names("cnames", e.CNAMEs)
	w.out = strconv.AppendBool(w.key("cached"), e.Cached)
	w.optional("upstream", e.Upstream)
	w.addr("resolver", e.Resolver)
	if e.Payload > 0 {
		w.out = strconv.AppendInt(w.key("payload"), int64(e.Payload), 10)
	}
	w.optional("limit", e.Limit)
	w.flag("search", e.Search)
	w.millis(e.Took)
	w.optional("error", e.Error)
}

func (w *encoder) conn(e *Event) {
	w.text("via", e.Via)
	if e.Host != "" {
		w.name("host", e.Host)
	}
	w.port("port", e.Port)
	w.addr("ip", e.IP)
	w.port("client_port", e.ClientPort)
	if e.SNI != "" {
		w.name("sni", e.SNI)
	}
	w.optional("alpn", e.ALPN)
	w.flag("ech", e.ECH)
	w.optional("method", e.Method)
	w.decision(e)
	w.optional("dns_id", e.DNSID)
	w.names("names", e.Names)
	w.flag("redialled", e.Redialled)
	w.addr("original", e.Original)
	w.flag("ambiguous", e.Ambiguous)
	if e.Phase == PhaseProgress || e.Phase == PhaseClose {
		w.out = strconv.AppendInt(w.key("sent"), e.Sent, 10)
		w.out = strconv.AppendInt(w.key("received"), e.Received, 10)
	}
	w.millis(e.Took)
	w.optional("error", e.Error)
	w.text("phase", e.Phase)
}

func (w *encoder) alert(e *Event) {
	w.text("alert", e.Alert)
	w.text("severity", e.Severity)
	w.text("summary", e.Summary)
	w.text("key", e.Key)
	w.out = strconv.AppendInt(w.key("count"), int64(e.Count), 10)
	w.time("first", e.First)
	w.time("last", e.Last)
	w.out = appendTexts(w.key("evidence"), e.Evidence, w.bounds.text, w.bounds.items)
	if e.Host != "" {
		w.name("host", e.Host)
	}
	w.port("port", e.Port)
	w.addr("ip", e.IP)
	w.optional("suggest", e.Suggest)
	w.optional("closed", e.Closed)
}

func (w *encoder) decision(e *Event) {
	w.text("verdict", e.Verdict.String())
	w.text("reason", e.Reason.String())
	if e.Reason == allowlists.AllowedByAudit {
		w.text("would", e.Would.String())
	}
	w.optional("rule", e.Rule)
	w.flag("quiet", e.Quiet)
}

func (w *encoder) job(j *allowlists.Job) {
	if j == nil {
		return
	}
	w.out = append(w.key("job"), '{')
	begin := len(w.out)
	for _, field := range [...]struct{ key, value string }{
		{`"repo":`, j.Repo}, {`"workflow":`, j.Workflow}, {`"run_id":`, j.RunID}, {`"job":`, j.Job}, {`"ref":`, j.Ref},
	} {
		if field.value == "" {
			continue
		}
		if len(w.out) > begin {
			w.out = append(w.out, ',')
		}
		w.out = appendText(append(w.out, field.key...), field.value, min(256, w.bounds.text))
	}
	w.out = append(w.out, '}')
}

// key appends a key, for its value to be appended.
func (w *encoder) key(key string) []byte {
	dst := append(w.out, ',', '"')
	dst = append(dst, key...)
	return append(dst, '"', ':')
}

func (w *encoder) text(key, value string) { w.bounded(key, value, w.bounds.text) }

func (w *encoder) name(key, value string) { w.bounded(key, value, w.bounds.name) }

func (w *encoder) optional(key, value string) {
	if value != "" {
		w.text(key, value)
	}
}

func (w *encoder) bounded(key, value string, limit int) {
	if dst := w.key(key); plain(value, limit) {
		dst = append(dst, '"')
		dst = append(dst, value...)
		w.out = append(dst, '"')
	} else {
		w.out = appendText(dst, value, limit)
	}
}

func (w *encoder) names(key string, names []string) {
	if len(names) > 0 {
		w.out = appendTexts(w.key(key), names, w.bounds.name, min(16, w.bounds.items))
	}
}

func (w *encoder) addr(key string, addr netip.Addr) {
	if addr.IsValid() {
		w.out = appendAddr(w.key(key), addr)
	}
}

func (w *encoder) port(key string, port uint16) {
	if port != 0 {
		w.out = strconv.AppendUint(w.key(key), uint64(port), 10)
	}
}

func (w *encoder) flag(key string, set bool) {
	if set {
		w.out = strconv.AppendBool(w.key(key), true)
	}
}

// time appends RFC 3339 with microseconds, always six digits, in UTC.
func (w *encoder) time(key string, t time.Time) {
	if second := t.Unix(); second != w.second || len(w.date) == 0 {
		w.second, w.date = second, t.UTC().AppendFormat(w.date[:0], "2006-01-02T15:04:05")
	}
	dst := append(w.key(key), '"')
	dst = append(dst, w.date...)
	micros := t.Nanosecond() / 1000
	dst = appendThree(append(dst, '.'), micros/1000)
	w.out = append(appendThree(dst, micros%1000), 'Z', '"')
}

// appendThree appends three digits.
func appendThree(dst []byte, n int) []byte {
	return append(dst, '0'+byte(n/100), '0'+byte(n/10%10), '0'+byte(n%10))
}

// millis appends "ms", always with three decimals.
func (w *encoder) millis(took time.Duration) {
	dst, micros := w.key("ms"), took.Microseconds()
	if micros < 0 {
		dst, micros = append(dst, '-'), -micros
	}
	dst = append(strconv.AppendInt(dst, micros/1000, 10), '.')
	w.out = appendThree(dst, int(micros%1000))
}
