package main

import (
	"context"
	"os/signal"
	"syscall"
	"time"
)

// interruptGrace is how long a command that reads files may take to end once it
// is told to.
const interruptGrace = time.Second

// untilInterrupted gives a context that ends with SIGINT or SIGTERM. Whoever
// waits for what no context ends, such as the writer of a named pipe, is ended
// by the signal itself after interruptGrace.
func untilInterrupted(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(parent, syscall.SIGINT, syscall.SIGTERM)
	release := context.AfterFunc(ctx, func() {
		stop()
		time.AfterFunc(interruptGrace, func() { _ = syscall.Kill(syscall.Getpid(), syscall.SIGTERM) })
	})
	return ctx, func() { release(); stop() }
}
