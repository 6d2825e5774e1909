package test

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// memoryGroup makes a cgroup with a memory limit, by either version of the
// interface, and gives its directory.
func memoryGroup(t *testing.T, bytes int) string {
	t.Helper()
	needRoot(t)
	name := fmt.Sprintf("sallyport-test-%d", os.Getpid())
	dir, limit := filepath.Join("/sys/fs/cgroup/memory", name), "memory.limit_in_bytes"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		dir, limit = filepath.Join("/sys/fs/cgroup", name), "memory.max"
		_ = os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+memory"), 0o644) // on already, mostly
	}
	err := os.Mkdir(dir, 0o755)
	need(t, err == nil, fmt.Sprintf("a memory cgroup (%v)", err))
	t.Cleanup(func() { _ = exec.Command("rmdir", dir).Run() })
	err = os.WriteFile(filepath.Join(dir, limit), fmt.Append(nil, bytes), 0o644)
	need(t, err == nil, fmt.Sprintf("a memory cgroup (%v)", err))
	return dir
}

// TestMemoryFollowsTheContainer starts the daemon in a cgroup of 256 MiB, with
// and without a limit of the environment's.
func TestMemoryFollowsTheContainer(t *testing.T) {
	const limit = 256 << 20
	group := memoryGroup(t, limit)
	within := []string{"sh", "-c", `echo $$ >"$0/cgroup.procs" && exec "$@"`, group}
	for _, c := range []struct {
		env  []string
		want []string
	}{
		{nil, []string{fmt.Sprintf("go_gc_gomemlimit_bytes %v\n", math.Floor(limit*0.9))}},
		{[]string{"GOMEMLIMIT=100MiB", "GOGC=50"}, []string{fmt.Sprintf("go_gc_gomemlimit_bytes %v\n", float64(100<<20)), "go_gc_gogc_percent 50\n"}},
	} {
		d := start(t, config{upstream: "127.0.0.1:1", prefix: within, env: c.env, pools: "  build: {sources: [127.0.0.0/8], allow: [a.example]}"})
		metrics := d.metrics()
		for _, want := range c.want {
			if !strings.Contains(metrics, want) {
				t.Errorf("with %v the metrics lack %s", c.env, want)
			}
		}
		d.stop()
	}
}
