package main

import "syscall"

// umask sets the process's file mode mask and gives the one before.
func umask(mask int) int { return syscall.Umask(mask) }
