package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/rs/zerolog"

	"sallyport/allowlists"
	"sallyport/allowlists/diag"
)

// loadConfig reads and checks the configuration at path, "" for the embedded
// one, and prints its errors to stderr; the error is then an exitError with
// code 2 that sums them up. digest changes with the text.
func loadConfig(path string, stderr io.Writer) (file *allowlists.File, digest string, err error) {
	file, report, digest, err := examine(path, nil)
	if err != nil {
		return nil, digest, err
	}
	return file, digest, printErrors(report, stderr)
}

// loadConfig is loadConfig for a daemon that serves: warnings go into the log
// too. Those of the embedded configuration do not, as nobody can mend them.
// Errors are printed at the start, for a person; at a reload, which has a rest
// to call after each few rules, they are lines of the log.
func (d *daemon) loadConfig(path string, rest func()) (*allowlists.File, string, error) {
	file, report, digest, err := examine(path, rest)
	switch {
	case err != nil:
	case rest == nil:
		err = printErrors(report, d.options.stderr)
	default:
		d.logProblems(zerolog.ErrorLevel, report.Errors())
		err = report.Err()
	}
	if err != nil {
		return nil, digest, err
	}
	if path != "" {
		d.logProblems(zerolog.WarnLevel, report.Warnings())
	}
	return file, digest, nil
}

// maxLogged bounds the problems of each level that a start or a reload logs.
const maxLogged = 20

func (d *daemon) logProblems(level zerolog.Level, problems []diag.Problem) {
	for _, problem := range problems[:min(len(problems), maxLogged)] {
		d.log.WithLevel(level).Msg(problem.String())
	}
	if more := len(problems) - maxLogged; more > 0 {
		d.log.WithLevel(level).Int("more", more).Msg("further problems of the configuration are not shown; sallyport check has all")
	}
}

// examine reads the configuration at path and holds it against the schema, the
// lint and this machine. The file is nil if the report has an error. It calls
// rest after each few rules. The digest is there also with an error.
func examine(path string, rest func()) (*allowlists.File, *diag.Report, string, error) {
	sources, err := readSources(path)
	if err != nil {
		return nil, nil, digestOf(nil, err), &exitError{exitUsage, err}
	}
	file, report := allowlists.LoadGently(sources, os.LookupEnv, time.Now(), rest)
	for _, name := range allowlists.SkippedFiles(path) {
		at := diag.Place{Pos: diag.Pos{File: name}}
		report.Warnf(at, "this file is not read, as only *.yaml are; rename it, or put it elsewhere if it is no part of the configuration")
	}
	if file != nil {
		checkTokenFile(file, report)
		checkVRFs(file, report, vrfOf)
	}
	if report.Failed() {
		file = nil
	}
	return file, report, digestOf(sources, nil), nil
}

// printErrors prints the errors of a report and sums them up in an exitError
// with code 2; nil if there are none.
func printErrors(report *diag.Report, stderr io.Writer) error {
	if !report.Failed() {
		return nil
	}
	if err := report.WriteErrors(stderr); err != nil {
		return &exitError{exitUsage, err}
	}
	return &exitError{exitUsage, printedError{report.Err()}}
}

func readSources(path string) ([]allowlists.Source, error) {
	if path == "" {
		return allowlists.Embedded(), nil
	}
	sources, err := allowlists.ReadSources(path)
	if err != nil {
		err = inertError{err}
	}
	return sources, err
}

// digestOf sums up what the sources say, or why they cannot be read, to tell a
// touch from a change.
func digestOf(sources []allowlists.Source, err error) string {
	sum := sha256.New()
	if err != nil {
		fmt.Fprintf(sum, "unread: %v", err)
	}
	for _, s := range sources {
		fmt.Fprintf(sum, "%s %d\n", s.Name, len(s.Text))
		sum.Write(s.Text)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// sourcesChanged reports whether the configuration is another than the one read
// last. One that cannot be read is another once, so that the reload says why;
// so is the good one when it is back.
func (d *daemon) sourcesChanged(path string) bool {
	last := d.sources.Load()
	return last == nil || digestOf(readSources(path)) != *last
}
