package main

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"time"

	"github.com/mattn/go-isatty"

	"sallyport/alerting"
	"sallyport/alerting/foreignlog"
)

// isTerminal reports whether a stream is one that a person looks at.
func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && isatty.IsTerminal(file.Fd())
}

// An alertPrinter writes alerts as they are found: lines of JSON, or a table.
type alertPrinter struct {
	out    *bufio.Writer
	table  bool
	headed bool
}

// newAlertPrinter makes one for a --format.
func newAlertPrinter(out io.Writer, format string) (*alertPrinter, error) {
	p := &alertPrinter{out: bufio.NewWriter(out)}
	switch format {
	case "":
		p.table = isTerminal(out)
	case "table":
		p.table = true
	case "json":
	default:
		return nil, fmt.Errorf("--format %s: formats are table and json", printable(format))
	}
	return p, nil
}

// alertRow is the shape of a row: first seen, severity, alert, count, client, summary.
const alertRow = "%-20s %-8s %-18s %6s  %-15s  %s\n"

// print writes one alert. Its text comes from logs that others write into:
// nothing that a terminal obeys is let through.
func (p *alertPrinter) print(a *alerting.Alert) error {
	if !p.table {
		line, err := a.Line().MarshalJSON()
		if err == nil {
			_, err = p.out.Write(append(line, '\n'))
		}
		return err
	}
	if !p.headed {
		p.headed = true
		fmt.Fprintf(p.out, alertRow, "FIRST (UTC)", "SEVERITY", "ALERT", "COUNT", "CLIENT", "SUMMARY")
	}
	_, err := fmt.Fprintf(p.out, alertRow, stamp(a.First), a.Severity, a.Alert, strconv.Itoa(a.Count), addrText(a.Client), printable(a.Summary))
	return err
}

func (p *alertPrinter) flush() error { return p.out.Flush() }

// addrText is an address, or a dash.
func addrText(addr netip.Addr) string {
	if !addr.IsValid() {
		return "-"
	}
	return addr.String()
}

// progressEvery is how often a terminal is told how far it is.
const progressEvery = 500 * time.Millisecond

// showProgress tells a terminal how much of the files is read, until stop.
func showProgress(stderr io.Writer, sources []*foreignlog.Source) (stop func()) {
	if !isTerminal(stderr) {
		return func() {}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(progressEvery)
		defer ticker.Stop()
		for began := time.Now(); ; {
			select {
			case <-ticker.C:
				fmt.Fprintf(stderr, "\r\x1b[K%s", progressText(sources, time.Since(began)))
			case <-done:
				fmt.Fprint(stderr, "\r\x1b[K")
				return
			}
		}
	}()
	return func() { close(done); <-ended }
}

// progressText is bytes, percent where the size is known, and speed.
func progressText(sources []*foreignlog.Source, took time.Duration) string {
	var read, size int64
	known := true
	for _, s := range sources {
		read, size, known = read+s.Read(), size+s.Size, known && s.Name != "-"
	}
	text := fmt.Sprintf("%.1f MB", float64(read)/1e6)
	if known && size > 0 {
		text += fmt.Sprintf(" of %.1f MB, %d%%", float64(size)/1e6, 100*read/size)
	}
	return text + fmt.Sprintf(", %.1f MB/s", float64(read)/1e6/took.Seconds())
}
