package foreignlog_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"sallyport/alerting/foreignlog"
)

// TestFewWaitUnderOneName asks one name as a job would that wants its log to
// take for ever to read: lines about a name are read as fast as others.
func TestFewWaitUnderOneName(t *testing.T) {
	const asked, wait = 1000, 256
	var log strings.Builder
	for i := range asked {
		fmt.Fprintf(&log, "Nov 23 09:10:57 dnsmasq[1]: query[A] same.example from 10.20.%d.%d\n", i/250, i%250)
	}
	log.WriteString("Nov 23 09:10:57 dnsmasq[1]: reply same.example is 203.0.113.7\n")
	source, err := foreignlog.Probe("-", foreignlog.FormatNamed("dnsmasq"), options, strings.NewReader(log.String()))
	if err != nil {
		t.Fatal(err)
	}
	records, answered := 0, 0
	for {
		r, err := source.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		records++
		if answered += len(r.Query.Answers); answered > 0 && len(r.Query.Answers) == 0 {
			t.Errorf("record %d has no answer, and an older one has", records)
		}
	}
	if records != asked || answered != wait {
		t.Errorf("%d records, %d of them with an answer", records, answered)
	}
}
