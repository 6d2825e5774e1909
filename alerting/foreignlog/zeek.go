package foreignlog

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// zeekLine is one line of a Zeek log, whichever way it was written: the fields
// of dns.log, ssl.log, http.log and conn.log (docs.zeek.org, "Zeek log formats
// and inspection") that say who asked for what and who connected where.
type zeekLine struct {
	path                 string // dns, ssl, http, conn
	at                   time.Time
	uid                  string
	client, server       netip.Addr
	clientPort, port     uint16
	proto, service       string
	duration             time.Duration // rtt in dns.log
	query, qtype         string
	class                uint16
	rcode                string
	answers              []string // at most maxAnswers
	ttls                 []time.Duration
	rejected             bool
	serverName, alpn     string
	method, host, uri    string
	sent, received       int64
	tunnelled            bool   // tunnel_parents says that another connection carries it
	history              string // conn.log: who sent what
	requestLen, replyLen int64
}

// zeekPaths are the logs that are read.
var zeekPaths = map[string]func(*zeekLine) *Record{
	"dns": zeekQuery, "ssl": zeekHello, "http": zeekRequest, "conn": zeekFlow,
}

// record makes the record of a line; nil for one that says nothing for us.
func (z *zeekLine) record() *Record {
	read := zeekPaths[z.path]
	if read == nil || !z.client.IsValid() || z.at.IsZero() {
		return nil
	}
	r := read(z)
	if r != nil {
		r.Time = z.at
	}
	return r
}

// notDNS are the ports of what dns.log holds beside questions to resolvers:
// multicast DNS, LLMNR and NetBIOS names.
var notDNS = []uint16{5353, 5355, 137}

// zeekQuery is a line of dns.log.
func zeekQuery(z *zeekLine) *Record {
	if z.query == "" || slices.Contains(notDNS, z.port) {
		return nil
	}
	q := &Query{
		Client: z.client, Resolver: z.server, Name: presented(strings.TrimSuffix(z.query, ".")), Type: z.qtype, Class: z.class,
		RCode: z.rcode, Took: z.duration, Refused: z.rejected && z.rcode == "REFUSED",
	}
	for i, answer := range z.answers {
		addr, isAddr := address([]byte(answer))
		switch {
		case isAddr && (q.Type == "A" || q.Type == "AAAA" || q.Type == "*" || q.Type == "ANY"):
			q.Answers = append(q.Answers, addr)
		case !isAddr && (q.Type == "A" || q.Type == "AAAA" || q.Type == "CNAME"):
			q.CNAMEs = append(q.CNAMEs, answer)
		}
		if i < len(z.ttls) && (q.TTL == 0 || z.ttls[i] < q.TTL) {
			q.TTL = max(z.ttls[i], 1) // 0 would say that nobody knows
		}
	}
	if q.Type == "*" {
		q.Type = "ANY"
	}
	return &Record{Query: q}
}

// flow is what every log says of a connection.
func (z *zeekLine) flow(part Part, via string) *Conn {
	return &Conn{
		Client: z.client, ClientPort: z.clientPort, IP: z.server, Port: z.port, Via: via, Part: part, UID: z.uid,
		Service: z.service, Took: z.duration,
	}
}

// zeekHello is a line of ssl.log.
func zeekHello(z *zeekLine) *Record {
	c := z.flow(Hello, ViaTLS)
	c.TLS, c.SNI, c.ALPN, c.Took = true, z.serverName, z.alpn, 0
	return &Record{Conn: c}
}

// zeekRequest is a line of http.log: one request, to a proxy where its URI is a
// whole one, or the method CONNECT.
func zeekRequest(z *zeekLine) *Record {
	c := z.flow(Request, ViaHTTP)
	c.Method, c.Host, c.Sent, c.Received = z.method, z.host, z.requestLen, z.replyLen
	var ok bool
	switch {
	case z.method == "CONNECT":
		c.Via, c.Explicit = ViaConnect, true
		c.Host, c.Port, ok = hostPort(z.uri, 0)
		if c.IP = (netip.Addr{}); !ok {
			return nil
		}
	case strings.Contains(z.uri[:min(len(z.uri), 8)], "://"):
		c.Explicit, c.Header = true, z.host
		c.Host, c.Port, ok = urlTarget(z.uri)
		if c.IP = (netip.Addr{}); !ok {
			return nil
		}
	default:
		c.Host, _, _ = hostPort(z.host, 0)
	}
	return &Record{Conn: c}
}

// zeekFlow is a line of conn.log. DNS to a resolver is in dns.log.
func zeekFlow(z *zeekLine) *Record {
	if z.tunnelled || strings.Contains(z.service, "dns") || z.port == 53 && z.proto == "udp" {
		return nil
	}
	c := z.flow(Flow, ViaTCP)
	switch z.proto {
	case "tcp":
		// Without the client's SYN it is the tail of something older, or was made
		// to the client: history holds upper-case letters for what the client sent.
		if z.history != "" && !strings.ContainsAny(z.history, "S") {
			return nil
		}
	case "udp":
		c.Via = ViaUDP
	case "icmp":
		c.Via, c.Port, c.ClientPort = ViaICMP, 0, 0
	default:
		c.Via = ViaOther
	}
	c.Sent, c.Received = z.sent, z.received
	return &Record{Conn: c}
}
