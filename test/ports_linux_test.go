package test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
)

// TestPortsAreSharedByDestinations opens more tunnels at once than there are
// local ports. Each has another destination, so that the kernel can give one
// port to many of them, unless a socket is bound before it connects.
func TestPortsAreSharedByDestinations(t *testing.T) {
	t.Parallel()
	const ports, tunnels = 16, 40
	s := newSpace(t, "ports")
	s.sysctl("net/ipv4/ip_local_port_range", fmt.Sprintf("40000\t%d", 40000+ports-1))
	var listeners []net.Listener
	s.do(func() {
		for i := range tunnels {
			l, err := net.Listen("tcp4", fmt.Sprintf("127.2.0.%d:7000", i+1))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			listeners = append(listeners, l)
		}
	})
	for _, l := range listeners {
		go serveEach(l, func(conn net.Conn) {
			_, _ = io.WriteString(conn, "here\n")
			_, _ = io.Copy(io.Discard, conn)
		})
	}
	d := prepare(t, config{upstream: "127.0.0.1:1", ip: "127.0.0.1", prefix: s.through(),
		pools: "  build: {sources: [127.0.0.0/8], allow: [{cidr: 127.2.0.0/24, ports: [7000]}]}"})
	d.run()
	for i := range tunnels {
		conn, err := s.dial("tcp", d.proxy, fmt.Sprintf("127.1.0.%d", i+1))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		target := fmt.Sprintf("127.2.0.%d:7000", i+1)
		if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target); err != nil {
			t.Fatal(err)
		}
		said := bufio.NewReader(conn)
		status, err := said.ReadString('\n')
		if err != nil || !strings.HasPrefix(status, "HTTP/1.1 200 ") {
			t.Fatalf("tunnel %d of %d: %q %v\n%s", i+1, tunnels, status, err, d.dump())
		}
		if _, err := said.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		if greeting, err := said.ReadString('\n'); greeting != "here\n" {
			t.Fatalf("tunnel %d carried %q %v", i+1, greeting, err)
		}
	}
}
