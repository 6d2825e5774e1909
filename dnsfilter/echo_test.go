package dnsfilter_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sallyport/allowlists"
)

// TestAQuestionThatComesBackIsToldAtOnce has an upstream that asks us in turn,
// as an engine's resolver does when its packets are redirected, too.
func TestAQuestionThatComesBackIsToldAtOnce(t *testing.T) {
	ours := make(chan string, 1)
	w := start(t, poolBuild, func(rw dns.ResponseWriter, q *dns.Msg) {
		addr := <-ours
		ours <- addr
		up, err := net.Dial("udp", addr)
		if err != nil {
			return
		}
		defer up.Close()
		wire, _ := q.Pack()
		buffer := make([]byte, 1232)
		_, _ = up.Write(wire)
		_ = up.SetReadDeadline(time.Now().Add(patience))
		if n, err := up.Read(buffer); err == nil {
			_, _ = rw.Write(buffer[:n])
		}
	})
	ours <- w.addr.String()
	began := time.Now()
	reply, err := dns.ExchangeContext(context.Background(), new(dns.Msg).SetQuestion("allowed.example.", dns.TypeA), w.addr.String())
	if err != nil || reply.Rcode == dns.RcodeSuccess || time.Since(began) > 2*time.Second {
		t.Errorf("%v, %v after %v", reply, err, time.Since(began))
	}
	circled := 0
	for _, r := range w.await(2) {
		if strings.Contains(r.Err, "our own question") && r.Reason == allowlists.UpstreamFailed && r.Answers == nil {
			circled++
		}
	}
	if circled == 0 {
		t.Error("no record says that the question came back")
	}
}
