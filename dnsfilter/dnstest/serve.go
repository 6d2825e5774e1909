package dnstest

import (
	"encoding/binary"
	"io"
	"log" //nolint:depguard // to silence it
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// quiet swallows what net/http says of clients that refuse our certificate.
var quiet = log.New(io.Discard, "", 0)

// maxKept is the number of queries a server remembers.
const maxKept = 1 << 16

// count counts a packet and wakes those who wait for one.
func (s *Server) count() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.packets++
	s.wake()
}

// wake wakes those who wait in Await. The caller holds mu.
func (s *Server) wake() {
	close(s.arrived)
	s.arrived = make(chan struct{})
}

// note remembers a query and returns the faults that apply to it.
func (s *Server) note(query Query) (f Faults, lost bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queries) < maxKept {
		s.queries = append(s.queries, query)
	}
	s.wake()
	f = s.faults
	if query.Proto == "udp" && (f.Drop < 0 || s.dropped < f.Drop) {
		s.dropped++
		return f, true
	}
	return f, false
}

// answer asks the handler; nil if it writes nothing, or the server ends first.
func (s *Server) answer(query Query, f Faults) *dns.Msg {
	if f.Delay > 0 {
		select {
		case <-time.After(f.Delay):
		case <-s.ctx.Done():
			return nil
		}
	}
	w := &recorder{from: query.From, proto: query.Proto}
	s.handler(w, query.Msg)
	return w.msg
}

// servePackets answers datagrams until conn is closed.
func (s *Server) servePackets(conn net.PacketConn) {
	buffer := make([]byte, dns.MaxMsgSize)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		msg := new(dns.Msg)
		if err := msg.Unpack(buffer[:n]); err != nil {
			s.count()
			continue
		}
		f, lost := s.note(Query{Msg: msg, From: from.(*net.UDPAddr).AddrPort(), Proto: "udp"})
		s.count()
		if lost {
			continue
		}
		s.wg.Go(func() {
			s.reply(conn, from, Query{Msg: msg, From: from.(*net.UDPAddr).AddrPort(), Proto: "udp"}, f)
		})
	}
}

// reply sends the decoys and the answer to a datagram.
func (s *Server) reply(conn net.PacketConn, to net.Addr, query Query, f Faults) {
	answer := s.answer(query, f)
	if answer == nil {
		return
	}
	for _, decoy := range f.Decoys {
		forged := answer.Copy()
		forged.Rcode, forged.Answer = dns.RcodeNameError, nil
		if decoy == nil {
			s.fromElsewhere(to, forged)
			continue
		}
		decoy(forged)
		send(conn, to, forged)
	}
	if f.NoCopy {
		return
	}
	if f.LoseCase {
		answer.Question[0].Name = strings.ToLower(answer.Question[0].Name)
	}
	if f.Truncate {
		answer.Truncated, answer.Answer = true, nil
	}
	send(conn, to, answer)
}

// fromElsewhere sends an answer from a port that was not asked.
func (s *Server) fromElsewhere(to net.Addr, forged *dns.Msg) {
	if conn, err := net.ListenPacket("udp", "127.0.0.1:0"); err == nil {
		defer conn.Close()
		send(conn, to, forged)
	}
}

// send writes one datagram; a client that is gone is no fault of the test.
func send(conn net.PacketConn, to net.Addr, msg *dns.Msg) {
	if wire, err := msg.Pack(); err == nil {
		_, _ = conn.WriteTo(wire, to)
	}
}

// serveStreams accepts connections until the listener is closed.
func (s *Server) serveStreams(listener net.Listener, proto string) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns[conn] = true
		s.mu.Unlock()
		s.count()
		s.wg.Go(func() {
			defer conn.Close()
			s.serveStream(conn, proto)
			s.mu.Lock()
			delete(s.conns, conn)
			s.mu.Unlock()
		})
		if s.ctx.Err() != nil {
			_ = conn.Close()
		}
	}
}

// serveStream answers one message after the other.
func (s *Server) serveStream(conn net.Conn, proto string) {
	from, _ := netip.ParseAddrPort(conn.RemoteAddr().String())
	for {
		var size uint16
		if binary.Read(conn, binary.BigEndian, &size) != nil {
			return
		}
		wire := make([]byte, size)
		if _, err := io.ReadFull(conn, wire); err != nil {
			return
		}
		msg := new(dns.Msg)
		if msg.Unpack(wire) != nil {
			return
		}
		query := Query{Msg: msg, From: from, Proto: proto}
		f, _ := s.note(query)
		if f.Silent {
			continue
		}
		answer := s.answer(query, f)
		if answer == nil {
			continue
		}
		wire, err := answer.Pack()
		if err != nil {
			return
		}
		frame := binary.BigEndian.AppendUint16(nil, uint16(len(wire)))
		if _, err := conn.Write(append(frame, wire...)); err != nil || f.HangUp {
			return
		}
	}
}

// CloseConns closes every connection from the server's side.
func (s *Server) CloseConns() {
	if s.web != nil {
		s.web.CloseClientConnections()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.conns {
		_ = conn.Close()
	}
}

// serveHTTP answers DNS over HTTPS.
func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	wire, err := io.ReadAll(io.LimitReader(r.Body, dns.MaxMsgSize))
	msg := new(dns.Msg)
	if err != nil || msg.Unpack(wire) != nil || r.URL.Path != "/dns-query" || r.Method != http.MethodPost {
		http.Error(w, "no DNS message", http.StatusBadRequest)
		return
	}
	from, _ := netip.ParseAddrPort(r.RemoteAddr)
	header := r.Header.Clone()
	header.Set("Proto", r.Proto)
	query := Query{Msg: msg, From: from, Proto: "https", Header: header}
	f, _ := s.note(query)
	answer := s.answer(query, f)
	if answer == nil {
		http.Error(w, "no answer", http.StatusInternalServerError)
		return
	}
	if wire, err = answer.Pack(); err == nil {
		w.Header().Set("Content-Type", "application/dns-message")
		_, _ = w.Write(wire)
	}
}
