package test

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// The promises of TestCorrelateBulk.
const (
	bulkMemory = 768 << 20 // bytes resident at the most, whatever the size of the logs
	bulkShort  = 32        // MB of logs where SALLYPORT_BULK does not say how many
)

// TestCorrelateBulk reads a day's logs of Zeek, dnsmasq and Squid, of 2,000
// clients and 500,000 addresses, in memory that does not grow with their size.
// SALLYPORT_BULK is their size in MB: make bulk reads 1 GB.
func TestCorrelateBulk(t *testing.T) {
	size := bulkShort
	if text := os.Getenv("SALLYPORT_BULK"); text != "" {
		size, _ = strconv.Atoi(text)
	}
	dir := t.TempDir()
	plain := filepath.Join(dir, "sallyport") // without the race detector, which takes memory of its own
	if out, err := exec.Command("go", "build", "-o", plain, "sallyport/cmd/sallyport").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := writeBulk(t, dir, size*1e6)
	cmd := exec.Command(plain, "correlate", "--format", "json", "--dns", "dns.log", "dnsmasq.log", "--proxy", "conn.log", "ssl.log", "access.log", "--zone", "UTC")
	cmd.Dir = dir
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	began := time.Now()
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	took, usage := time.Since(began), cmd.ProcessState.SysUsage().(*syscall.Rusage)
	t.Logf("%d MB, %d lines in %.1f s: %.0f lines a second, %d MB resident, %d alerts\n%s", size, lines, took.Seconds(),
		float64(lines)/took.Seconds(), usage.Maxrss>>10, bytes.Count(out.Bytes(), []byte("\n")), &stderr)
	if usage.Maxrss<<10 > bulkMemory {
		t.Errorf("%d MB were resident", usage.Maxrss>>10)
	}
	if bytes.Contains(stderr.Bytes(), []byte("skipped")) {
		t.Errorf("lines were skipped:\n%s", &stderr)
	}
	if !bytes.Contains(out.Bytes(), []byte(`"alert":"direct-ip"`)) {
		t.Errorf("no direct-ip among\n%.2000s", &out)
	}
}

// writeBulk writes logs of some size in bytes and gives how many lines they have.
func writeBulk(t *testing.T, dir string, size int) (lines int) {
	t.Helper()
	files := map[string]*bufio.Writer{}
	for _, name := range []string{"dns.log", "dnsmasq.log", "conn.log", "ssl.log", "access.log"} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[name] = bufio.NewWriterSize(f, 1<<20)
		defer files[name].Flush()
	}
	written := 0
	write := func(name, format string, args ...any) {
		n, _ := fmt.Fprintf(files[name], format, args...)
		written, lines = written+n, lines+1
	}
	for path, fields := range map[string]string{
		"dns":  "ts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\trtt\tquery\tqclass\tqtype_name\trcode_name\tanswers\tTTLs",
		"conn": "ts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tservice\tduration\torig_bytes\tresp_bytes\tconn_state\thistory",
		"ssl":  "ts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tserver_name",
	} {
		write(path+".log", "#separator \\x09\n#path\t%s\n#fields\t%s\n", path, fields)
	}
	random := rand.New(rand.NewPCG(1, 2))
	const perRound = 1090 // bytes, about
	rounds := size/perRound + 1
	begun := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for i := range rounds {
		at := begun.Add(time.Duration(i) * (24 * time.Hour / time.Duration(rounds)))
		ts := float64(at.UnixMicro()) / 1e6
		client := fmt.Sprintf("10.%d.%d.7", 20+random.IntN(8), random.IntN(250))
		n := random.IntN(500_000)
		name, addr := fmt.Sprintf("host-%d.site%d.example", n, n%20_000), fmt.Sprintf("93.%d.%d.%d", 128+n>>16, n>>8&255, n&255)
		write("dns.log", "%.6f\tC%017d\t%s\t40000\t10.0.0.53\t53\tudp\t0.001\t%s\t1\tA\tNOERROR\t%s\t60.000000\n", ts, 4*i, client, name, addr)
		write("ssl.log", "%.6f\tC%017d\t%s\t40001\t%s\t443\t%s\n", ts+0.05, 4*i+1, client, addr, name)
		write("conn.log", "%.6f\tC%017d\t%s\t40001\t%s\t443\ttcp\tssl\t1.5\t900\t9000\tSF\tShADadFf\n", ts+0.04, 4*i+1, client, addr)
		write("conn.log", "%.6f\tC%017d\t%s\t40002\t%s\t22\ttcp\t-\t1.5\t900\t9000\tSF\tShADadFf\n", ts+0.06, 4*i+2, client, addr)
		stamp := at.Format("Jan _2 15:04:05")
		write("dnsmasq.log", "%s dnsmasq[7]: %d %s/40003 query[A] b%s from %s\n", stamp, i, client, name, client)
		write("dnsmasq.log", "%s dnsmasq[7]: %d %s/40003 forwarded b%s to 10.0.0.54\n", stamp, i, client, name)
		write("dnsmasq.log", "%s dnsmasq[7]: %d %s/40003 reply b%s is %s\n", stamp, i, client, name, addr)
		write("access.log", "%.3f   1000 %s TCP_TUNNEL/200 5120 CONNECT b%s:443 - HIER_DIRECT/%s -\n", ts+1.1, client, name, addr)
		write("access.log", "%.3f      1 %s TCP_MISS/200 612 GET http://b%s/a/path/of/some/length?q=1 - HIER_DIRECT/%s text/html\n", ts+0.2, client, name, addr)
		if i%5000 == 0 {
			write("conn.log", "%.6f\tC%017d\t%s\t40004\t185.1.%d.9\t443\ttcp\t-\t1.5\t900\t9000\tSF\tShADadFf\n", ts+0.3, 4*i+3, client, i/5000%250)
		}
	}
	return lines
}
