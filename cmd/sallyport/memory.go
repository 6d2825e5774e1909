package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// How memory is traded for time. A gate has little that lives and much that is
// gone with its connection, so Go would collect all the time: garbage may reach
// gcRoom first, and what is left of a rush is given back when it is over.
const (
	gcRoom      = 32 << 20
	gcRoomLimit = 8 * gcRoom // a container with less than this has no room
	memoryRatio = 0.9        // of the container's limit, as GOMEMLIMIT

	tidyLook  = 250 * time.Millisecond
	tidyQuiet = 512 << 10 // bytes allocated between two looks of a quiet time
	tidyWorth = 8 << 20   // bytes allocated since the last time that are worth it
)

// followMemoryLimit makes the memory limit of the container (cgroup v1 or v2)
// that of Go. GOMEMLIMIT in the environment wins. Where there is no limit, or
// none to be read, as in a namespace without /sys/fs/cgroup, there is none.
func followMemoryLimit() {
	_, _ = memlimit.Set(memlimit.WithRatio(memoryRatio), memlimit.WithProvider(memlimit.FromCgroup))
}

// makeGCRoom gives garbage its room, as long as what it returns lives: Go takes
// that for used, though it is never touched and so takes no memory, and waits
// with a collection until there is as much garbage. It wants to be among the
// first things made: Go clears memory that was in use before, and so touches
// all of the room. GOGC in the environment means what it says.
func makeGCRoom() []byte {
	if os.Getenv("GOGC") != "" || debug.SetMemoryLimit(-1) < gcRoomLimit {
		return nil
	}
	return make([]byte, gcRoom)
}

// tidyMemory gives back what a rush took, starting with the reading of the
// configuration, until ctx ends.
func tidyMemory(ctx context.Context) error {
	look := time.NewTicker(tidyLook)
	defer look.Stop()
	allocated := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(allocated)
	before, tidied := allocated[0].Value.Uint64(), uint64(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
		metrics.Read(allocated)
		now := allocated[0].Value.Uint64()
		if now-before < tidyQuiet && now-tidied > tidyWorth {
			runtime.GC() // each halves the stacks that are mostly unused
			debug.FreeOSMemory()
			releaseProgram()
			tidied = now
		}
		before = now
	}
}
