package foreignlog

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strings"
	"time"
)

// zeekJSON reads Zeek's logs as policy/tuning/json-logs and json-streaming-logs
// write them: one object a line, absent fields left out. A line need not say of
// which log it is: its fields do, so that one file may hold several.
type zeekJSON struct{}

// zeekWire is a line as it is written.
type zeekWire struct {
	Path          string          `json:"_path"`
	TS            json.RawMessage `json:"ts"` // a number, or a text where Zeek was told so
	UID           string          `json:"uid"`
	Client        netip.Addr      `json:"id.orig_h"`
	ClientPort    uint16          `json:"id.orig_p"`
	Server        netip.Addr      `json:"id.resp_h"`
	Port          uint16          `json:"id.resp_p"`
	Proto         string          `json:"proto"`
	Service       string          `json:"service"`
	Duration      float64         `json:"duration"`
	RTT           float64         `json:"rtt"`
	Query         *string         `json:"query"`
	Class         uint16          `json:"qclass"`
	Type          string          `json:"qtype_name"`
	RCode         string          `json:"rcode_name"`
	Answers       []string        `json:"answers"`
	TTLs          []float64       `json:"TTLs"`
	Rejected      bool            `json:"rejected"`
	TransID       *uint32         `json:"trans_id"`
	ServerName    string          `json:"server_name"`
	ALPN          string          `json:"next_protocol"`
	Established   *bool           `json:"established"`
	Method        string          `json:"method"`
	Host          string          `json:"host"`
	URI           string          `json:"uri"`
	TransDepth    *uint32         `json:"trans_depth"`
	RequestLen    int64           `json:"request_body_len"`
	ReplyLen      int64           `json:"response_body_len"`
	Sent          int64           `json:"orig_bytes"`
	Received      int64           `json:"resp_bytes"`
	State         *string         `json:"conn_state"`
	History       string          `json:"history"`
	TunnelParents []string        `json:"tunnel_parents"`
}

func looksZeekJSON(line []byte) bool {
	var w zeekWire
	return len(line) > 0 && line[0] == '{' && json.Unmarshal(line, &w) == nil && len(w.TS) > 0 && (w.UID != "" || w.Path != "")
}

// path is the log that a line is of; "" for one that is not read.
func (w *zeekWire) path() string {
	switch {
	case w.Path != "":
		return zeekPath(w.Path)
	case w.Query != nil || w.TransID != nil:
		return "dns"
	case w.Established != nil:
		return "ssl"
	case w.TransDepth != nil:
		return "http"
	case w.State != nil:
		return "conn"
	default:
		return ""
	}
}

func (zeekJSON) parse(line []byte, emit func(Record)) error {
	if len(bytes.TrimSpace(line)) == 0 {
		return nil
	}
	var w zeekWire
	if json.Unmarshal(line, &w) != nil {
		return errLine
	}
	z := zeekLine{
		path: w.path(), at: zeekTime(bytes.Trim(w.TS, `"`)), uid: short(w.UID), client: plain(w.Client), server: plain(w.Server), clientPort: w.ClientPort, port: w.Port,
		proto: short(w.Proto), service: short(w.Service), duration: seconds(w.Duration + w.RTT), qtype: short(w.Type), class: w.Class,
		rcode: short(w.RCode), rejected: w.Rejected, serverName: short(w.ServerName), alpn: short(w.ALPN), method: short(w.Method),
		host: short(w.Host), uri: short(w.URI), requestLen: max(0, w.RequestLen), replyLen: max(0, w.ReplyLen), sent: max(0, w.Sent),
		received: max(0, w.Received), history: short(w.History), tunnelled: len(w.TunnelParents) > 0,
	}
	if z.at.IsZero() {
		return errLine
	}
	if w.Query != nil {
		z.query = short(*w.Query)
	}
	for i, answer := range w.Answers[:min(len(w.Answers), maxAnswers)] {
		z.answers = append(z.answers, short(answer))
		if i < len(w.TTLs) {
			z.ttls = append(z.ttls, min(seconds(w.TTLs[i]), 30*24*time.Hour))
		}
	}
	if r := z.record(); r != nil {
		emit(*r)
	}
	return nil
}

func (zeekJSON) flush(func(Record)) {}

// short is text up to maxField bytes, not sharing memory with a longer one.
func short(text string) string {
	if len(text) <= maxField {
		return text
	}
	return strings.Clone(text[:maxField])
}
