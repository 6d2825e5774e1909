package alerting

import (
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"sallyport/allowlists"
)

// maxLine is the longest event line in bytes, its newline included.
const maxLine = 16 << 10

// timeLayout is RFC 3339 with microseconds, always six digits, in UTC.
const timeLayout = "2006-01-02T15:04:05.000000Z"

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
	logger  zerolog.Logger
	line    *zerolog.Event // under construction
	out     []byte         // the finished line
	scratch []byte
	bounds  bounds
}

// encoders hold encoders that nobody uses.
var encoders = sync.Pool{New: func() any {
	w := new(encoder)
	w.logger = zerolog.New(w)
	return w
}}

// Write takes the finished line from zerolog, which reuses its own buffer.
func (w *encoder) Write(line []byte) (int, error) {
	w.out = append(w.out[:0], line...)
	return len(line), nil
}

// encode makes the line of e, with its newline: one JSON object, the fields in
// the order of docs/events.md, never over maxLine. The line is valid until the
// encoder's next call.
func (w *encoder) encode(e *Event) []byte {
	w.bounds = wideBounds
	w.render(e)
	if len(w.out) > maxLine {
		w.bounds = tightBounds
		w.render(e)
	}
	return w.out
}

func (w *encoder) render(e *Event) {
	w.line = w.logger.Log()
	w.line.Int("v", eventVersion)
	w.time("time", e.Time)
	w.text("kind", e.Kind)
	if e.Kind != KindSystem {
		w.text("id", e.ID)
	}
	w.optional("pool", e.Pool)
	w.addr("client", e.Client)
	w.optional("iface", e.Iface)
	if e.Policy != 0 {
		w.line.Uint64("policy", e.Policy)
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
	w.line.Send()
	w.line = nil
}

func (w *encoder) dns(e *Event) {
	w.text("by", e.By)
	w.name("name", e.Name)
	w.text("type", e.Type)
	w.decision(e)
	w.text("rcode", e.RCode)
	w.line.RawJSON("answers", w.keep(appendAddrs(w.scratch[:0], e.Answers, w.bounds.items)))
	if len(e.Removed) > 0 {
		w.line.RawJSON("removed", w.keep(appendAddrs(w.scratch[:0], e.Removed, w.bounds.items)))
	}
	w.names("cnames", e.CNAMEs)
	w.line.Bool("cached", e.Cached)
	w.optional("upstream", e.Upstream)
	w.addr("resolver", e.Resolver)
	if e.Payload > 0 {
		w.line.Int("payload", e.Payload)
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
		w.line.Int64("sent", e.Sent)
		w.line.Int64("received", e.Received)
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
	w.line.Int("count", e.Count)
	w.time("first", e.First)
	w.time("last", e.Last)
	w.line.RawJSON("evidence", w.keep(appendTexts(w.scratch[:0], e.Evidence, w.bounds.text, w.bounds.items)))
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
	dst := append(w.scratch[:0], '{')
	for _, field := range [...]struct{ key, value string }{
		{`"repo":`, j.Repo}, {`"workflow":`, j.Workflow}, {`"run_id":`, j.RunID}, {`"job":`, j.Job}, {`"ref":`, j.Ref},
	} {
		if field.value == "" {
			continue
		}
		if len(dst) > 1 {
			dst = append(dst, ',')
		}
		dst = appendText(append(dst, field.key...), field.value, min(256, w.bounds.text))
	}
	w.line.RawJSON("job", w.keep(append(dst, '}')))
}

// keep remembers the grown scratch buffer and gives it back.
func (w *encoder) keep(scratch []byte) []byte {
	w.scratch = scratch
	return scratch
}

func (w *encoder) text(key, value string) { w.bounded(key, value, w.bounds.text) }

func (w *encoder) name(key, value string) { w.bounded(key, value, w.bounds.name) }

func (w *encoder) optional(key, value string) {
	if value != "" {
		w.text(key, value)
	}
}

func (w *encoder) bounded(key, value string, limit int) {
	if plain(value, limit) {
		w.line.Str(key, value)
		return
	}
	w.line.RawJSON(key, w.keep(appendText(w.scratch[:0], value, limit)))
}

func (w *encoder) names(key string, names []string) {
	if len(names) > 0 {
		w.line.RawJSON(key, w.keep(appendTexts(w.scratch[:0], names, w.bounds.name, min(16, w.bounds.items))))
	}
}

func (w *encoder) addr(key string, addr netip.Addr) {
	if addr.IsValid() {
		w.line.RawJSON(key, w.keep(appendAddr(w.scratch[:0], addr)))
	}
}

func (w *encoder) port(key string, port uint16) {
	if port != 0 {
		w.line.Uint16(key, port)
	}
}

func (w *encoder) flag(key string, set bool) {
	if set {
		w.line.Bool(key, true)
	}
}

func (w *encoder) time(key string, t time.Time) {
	dst := append(w.scratch[:0], '"')
	dst = t.UTC().AppendFormat(dst, timeLayout)
	w.line.RawJSON(key, w.keep(append(dst, '"')))
}

// millis appends "ms", always with three decimals.
func (w *encoder) millis(took time.Duration) {
	w.line.RawJSON("ms", w.keep(strconv.AppendFloat(w.scratch[:0], float64(took.Microseconds())/1000, 'f', 3, 64)))
}
