package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"time"

	"sallyport/allowlists"
)

// loadConfig reads and checks the configuration at path, "" for the embedded
// one, and prints its errors to stderr; the error is then an exitError with
// code 2 that sums them up. digest changes with the text.
func loadConfig(path string, stderr io.Writer) (file *allowlists.File, digest string, err error) {
	sources, err := readSources(path)
	if err != nil {
		return nil, "", &exitError{exitUsage, err}
	}
	file, report := allowlists.Load(sources, os.LookupEnv, time.Now())
	if report.Failed() {
		if err := report.WriteErrors(stderr); err != nil {
			return nil, digestOf(sources), &exitError{exitUsage, err}
		}
		return nil, digestOf(sources), &exitError{exitUsage, printedError{report.Err()}}
	}
	return file, digestOf(sources), nil
}

func readSources(path string) ([]allowlists.Source, error) {
	if path == "" {
		return allowlists.Embedded(), nil
	}
	return allowlists.ReadSources(path)
}

// digestOf sums up what the sources say, to tell a touch from a change.
func digestOf(sources []allowlists.Source) string {
	sum := sha256.New()
	for _, s := range sources {
		fmt.Fprintf(sum, "%s %d\n%s", s.Name, len(s.Text), s.Text)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// sourcesChanged reports whether the configuration's text is another than the
// one read last. One that cannot be read counts as changed, so that the reload
// says why.
func (d *daemon) sourcesChanged(path string) bool {
	sources, err := readSources(path)
	last := d.sources.Load()
	return err != nil || last == nil || digestOf(sources) != *last
}
