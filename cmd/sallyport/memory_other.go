//go:build !linux

package main

// releaseProgram is for Linux only.
func releaseProgram() {}
