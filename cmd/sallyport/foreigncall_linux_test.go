//go:build !amd64

package main

import "syscall"

// foreignCall is for amd64.
func foreignCall() (syscall.Errno, bool) { return 0, false }
