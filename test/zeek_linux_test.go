package test

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/miekg/dns"
)

// A zeekField is a field of a line that Zeek would write: its name, its value
// as JSON has it, and as a line of fields has it.
type zeekField struct {
	name  string
	value any
}

// zeekHead are the fields that the logs begin with.
func zeekHead(n int, s *seenTraffic) []zeekField {
	return []zeekField{
		{"ts", float64(s.at.UnixMicro()) / 1e6}, {"uid", fmt.Sprintf("C%017d", n)},
		{"id.orig_h", s.client}, {"id.orig_p", s.clientPort}, {"id.resp_h", s.server.Addr().String()}, {"id.resp_p", s.server.Port()},
	}
}

// zeekDNS are the lines of dns.log (docs.zeek.org, DNS::Info).
func zeekDNS(seen []seenTraffic) (lines [][]zeekField) {
	for n := range seen {
		s := &seen[n]
		if s.question == nil {
			continue
		}
		q := s.question.Question[0]
		var answers []string
		var ttls []float64
		for _, rr := range s.question.Answer {
			switch rr := rr.(type) {
			case *dns.A:
				answers = append(answers, rr.A.String())
			case *dns.CNAME:
				answers = append(answers, strings.TrimSuffix(rr.Target, "."))
			}
			ttls = append(ttls, float64(rr.Header().Ttl))
		}
		lines = append(lines, append(zeekHead(n, s), []zeekField{
			{"proto", "udp"}, {"trans_id", s.question.Id}, {"rtt", s.end.Sub(s.at).Seconds()}, {"query", strings.TrimSuffix(q.Name, ".")},
			{"qclass", q.Qclass}, {"qclass_name", "C_INTERNET"}, {"qtype", q.Qtype}, {"qtype_name", dns.TypeToString[q.Qtype]},
			{"rcode", s.question.Rcode}, {"rcode_name", dns.RcodeToString[s.question.Rcode]},
			{"AA", false}, {"TC", false}, {"RD", true}, {"RA", true}, {"Z", 0}, {"answers", answers}, {"TTLs", ttls}, {"rejected", false},
		}...))
	}
	return lines
}

// zeekHTTP are the lines of http.log (HTTP::Info).
func zeekHTTP(seen []seenTraffic) (lines [][]zeekField) {
	for n := range seen {
		s := &seen[n]
		if s.method == "" {
			continue
		}
		host := s.host
		if host == "" {
			host = strings.TrimSuffix(strings.TrimPrefix(s.uri, "http://"), "/")
		}
		lines = append(lines, append(zeekHead(n, s), []zeekField{
			{"trans_depth", 1}, {"method", s.method}, {"host", host}, {"uri", s.uri}, {"version", "1.1"},
			{"request_body_len", 0}, {"response_body_len", 0}, {"status_code", 200}, {"tags", []string{}},
		}...))
	}
	return lines
}

// zeekSSL are the lines of ssl.log (SSL::Info), of TLS inside of tunnels too.
func zeekSSL(seen []seenTraffic) (lines [][]zeekField) {
	for n := range seen {
		if s := &seen[n]; s.sni != "" {
			lines = append(lines, append(zeekHead(n, s), []zeekField{
				{"version", "TLSv13"}, {"cipher", "TLS_AES_128_GCM_SHA256"}, {"server_name", s.sni}, {"resumed", false}, {"established", true},
			}...))
		}
	}
	return lines
}

// zeekConns are the lines of conn.log (Conn::Info).
func zeekConns(seen []seenTraffic) (lines [][]zeekField) {
	for n := range seen {
		s := &seen[n]
		proto, service := "tcp", ""
		switch {
		case s.question != nil:
			proto, service = "udp", "dns"
		case s.sni != "" && s.method != "":
			service = "http,ssl"
		case s.method != "":
			service = "http"
		case s.sni != "":
			service = "ssl"
		}
		lines = append(lines, append(zeekHead(n, s), []zeekField{
			{"proto", proto}, {"service", service}, {"duration", s.end.Sub(s.at).Seconds()}, {"orig_bytes", s.sent + 80}, {"resp_bytes", 120},
			{"conn_state", "SF"}, {"local_orig", true}, {"history", "ShADadFf"}, {"tunnel_parents", []string{}},
		}...))
	}
	return lines
}

// zeekJSONOf writes lines as policy/tuning/json-logs does: what is empty is left out.
func zeekJSONOf(lines [][]zeekField) string {
	var b strings.Builder
	for _, line := range lines {
		object := map[string]any{}
		for _, f := range line {
			if text := zeekText(f.value); text != "-" && text != "(empty)" {
				object[f.name] = f.value
			}
		}
		data, _ := json.Marshal(object)
		b.Write(append(data, '\n'))
	}
	return b.String()
}

// zeekTSVOf writes lines as Zeek does by default (docs.zeek.org, "Zeek log
// formats and inspection").
func zeekTSVOf(path string, lines [][]zeekField) string {
	var b strings.Builder
	fmt.Fprintf(&b, "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\t%s\n#open\t2026-11-23-09-00-00\n", path)
	for i, line := range lines {
		var names, texts []string
		for _, f := range line {
			names, texts = append(names, f.name), append(texts, zeekText(f.value))
		}
		if i == 0 {
			b.WriteString("#fields\t" + strings.Join(names, "\t") + "\n")
		}
		b.WriteString(strings.Join(texts, "\t") + "\n")
	}
	return b.String() + "#close\t2026-11-23-10-00-00\n"
}

// zeekText is a value in a line of fields.
func zeekText(value any) string {
	switch v := value.(type) {
	case bool:
		return strings.ToUpper(fmt.Sprint(v)[:1])
	case float64:
		return fmt.Sprintf("%.6f", v)
	case []string:
		if len(v) == 0 {
			return "(empty)"
		}
		return strings.Join(v, ",")
	case []float64:
		var texts []string
		for _, f := range v {
			texts = append(texts, zeekText(f))
		}
		if len(texts) == 0 {
			return "-"
		}
		return strings.Join(texts, ",")
	case string:
		if v == "" {
			return "-"
		}
		return v
	default:
		return fmt.Sprint(v)
	}
}
