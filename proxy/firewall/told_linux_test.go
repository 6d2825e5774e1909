package firewall

import (
	"net"
	"testing"
)

func TestCountableSeesWhatTheRateLeavesOut(t *testing.T) {
	const rules = `table inet sallyport {
	chain refuse {
		limit rate 1/hour burst 5 packets log prefix "sallyport refused " group 7
		meta l4proto udp counter reject
		counter drop
	}
	chain asked {
		type filter hook output priority -150; policy accept;
		udp dport 53 log prefix "sallyport dns " group 7
		udp dport 53 counter
	}
	chain out {
		type filter hook output priority 0; policy accept;
		ip daddr 203.0.113.0/24 counter goto refuse
	}
}
`
	inNamespace(t, rules, func() {
		mustRun(t, "ip addr add 10.1.0.1/24 dev lo; ip route add default dev lo")
		told := uint64(0)
		l, err := OpenPacketLog(7, func(p Packet) {
			if p.Prefix == LogRefused {
				told++
			}
		})
		if err != nil {
			t.Error(err)
			return
		}
		defer l.Close()
		c, err := net.ListenPacket("udp", "10.1.0.1:0")
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		for range 20 {
			send(t, c, "203.0.113.9:53")
		}
		l.Drain()
		if got, err := Countable(); err != nil || got != 20 || told != 5 {
			t.Errorf("%d are countable (%v) and %d were told of, want 20 and 5", got, err, told)
		}
	})
}
