package main

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// foreignCall makes a call of i386, getpid, from this 64-bit program; false
// where the kernel has none of these.
func foreignCall() (syscall.Errno, bool) {
	if _, err := os.Stat("/proc/sys/abi/vsyscall32"); err != nil { // CONFIG_IA32_EMULATION
		return 0, false
	}
	code, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return 0, false
	}
	copy(code, []byte{0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xc3}) // mov $20, %eax; int $0x80; ret
	entry := unsafe.Pointer(&code[0])
	function := &entry
	call := *(*func() int32)(unsafe.Pointer(&function))
	return errnoOf(call()), true
}

// errnoOf is the error in what a call returned.
func errnoOf(returned int32) syscall.Errno {
	if returned < 0 && returned > -4096 {
		return syscall.Errno(-returned)
	}
	return 0
}
