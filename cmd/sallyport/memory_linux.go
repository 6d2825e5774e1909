package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// releaseProgram unmaps the pages of our own program: starting goes through
// most of it, serving through a part. What is wanted again comes from the page
// cache within a microsecond, and the rest is the kernel's to drop. Nothing
// happens where /proc cannot be read.
func releaseProgram() {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return
	}
	for _, m := range unwritten(string(maps), program) {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED)
	}
}

// A mapping is a range of addresses.
type mapping struct{ from, to uintptr }

// unwritten finds in the text of /proc/PID/smaps (proc(5)) the mappings of a
// file that cannot be written to, and that have no page which ever was, as
// relocated ones have: those would come back as they are in the file.
func unwritten(maps, file string) (found []mapping) {
	var at mapping
	ours := false
	for line := range strings.Lines(maps) {
		line = strings.TrimSuffix(line, "\n")
		var from, to uintptr
		var rights string
		if n, _ := fmt.Sscanf(line, "%x-%x %4s ", &from, &to, &rights); n == 3 {
			at = mapping{from, to}
			ours = strings.HasSuffix(line, " "+file) && (rights == "r--p" || rights == "r-xp")
		}
		if key, value, _ := strings.Cut(line, ":"); ours && key == "Anonymous" && strings.TrimSpace(value) == "0 kB" {
			found = append(found, at)
		}
	}
	return found
}
