//go:build !linux

package main

import "errors"

var errLinux = errors.New("this needs Linux")

func watch() error             { return errLinux }
func frame(_, _ string) error  { return errLinux }
func become(int) error         { return errLinux }
func marked(int, string) error { return errLinux }
