//go:build linux

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A window measures the CPU that a subject and this program take while
// something is timed.
type window struct {
	pid     int // 0 measures nothing of a subject
	start   time.Time
	subject time.Duration // CPU of the subject before
	load    time.Duration // CPU of this program before
}

func openWindow(pid int) *window {
	return &window{pid: pid, start: time.Now(), subject: cpuTime(pid), load: ownCPU()}
}

// settle is the time that a subject has, after the last answer, to close what
// it has open; the CPU it takes for that is counted.
const settle = 100 * time.Millisecond

// closeInto ends the timed part of a sample whose Ops are known, and fills in
// time, CPU and memory.
func (w *window) closeInto(s *Sample) {
	elapsed := time.Since(w.start)
	s.Seconds = elapsed.Seconds()
	s.Values[loadUse] = (ownCPU() - w.load).Seconds() / s.Seconds
	if w.pid == 0 {
		return
	}
	time.Sleep(settle)
	used := cpuTime(w.pid) - w.subject
	s.Values[subjectUse] = used.Seconds() / s.Seconds
	s.Values[rss] = float64(residentKiB(w.pid)) / 1024
	if s.Ops > 0 {
		s.Values[cpu] = float64(used.Microseconds()) / s.Ops
	}
}

// tick is the unit of CPU time in /proc: USER_HZ is 100 wherever Go runs on
// Linux (proc(5), getconf CLK_TCK).
const tick = 10 * time.Millisecond

// cpuTime is the CPU time, user and system, of a process with all its threads,
// also those that have ended, and of its living descendants. 0 for pid 0 and
// for a process that is gone.
func cpuTime(pid int) time.Duration {
	var sum time.Duration
	for _, p := range descent(pid) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p))
		if err != nil {
			continue
		}
		sum += parseStat(string(text))
	}
	return sum
}

// parseStat is utime and stime of a /proc/PID/stat, fields 14 and 15. The
// program's name before them may hold spaces and brackets.
func parseStat(text string) time.Duration {
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * tick
}

// descent is a process and its living descendants; empty for pid 0.
func descent(pid int) []int {
	if pid == 0 {
		return nil
	}
	all := []int{pid}
	threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, thread := range threads {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, thread.Name()))
		if err != nil {
			continue
		}
		for _, field := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(field); err == nil {
				all = append(all, descent(child)...)
			}
		}
	}
	return all
}

// residentKiB is VmRSS of a process and its living descendants.
func residentKiB(pid int) int64 {
	var sum int64
	for _, p := range descent(pid) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
				kib, _ := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
				sum += kib
			}
		}
	}
	return sum
}

// openFiles counts the descriptors of a process and its living descendants.
func openFiles(pid int) int {
	sum := 0
	for _, p := range descent(pid) {
		entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p))
		sum += len(entries)
	}
	return sum
}

// ownCPU is the CPU time of this program.
func ownCPU() time.Duration {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
