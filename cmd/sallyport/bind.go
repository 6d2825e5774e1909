package main

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// withMend adds to the error of a listener what a person does about it, where
// the kernel's word says what that is.
func withMend(err error) error {
	var op *net.OpError
	if !errors.As(err, &op) || op.Net == "unix" {
		return err
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w; another program has it, perhaps a Sallyport that runs already (ss -lntup shows which): stop that, or give listen another address", err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%w; no interface of this machine has that address", err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w; ports below 1024 take root or the capability NET_BIND_SERVICE", err)
	default:
		return err
	}
}
