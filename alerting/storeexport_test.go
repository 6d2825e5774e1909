package alerting

import (
	"bytes"
	"time"
)

// StoreFaults drains what a store in a file found wrong, as its words.
func StoreFaults(s Store) (states []string) {
	for _, f := range s.(*fileStore).faults() {
		states = append(states, f.state)
	}
	return states
}

// VerifyNow makes the next commit read the whole file.
func VerifyNow(s Store) { s.(*fileStore).verified = time.Time{} }

// StoreLine is a line of a store's file, without its end.
func StoreLine(body string) []byte {
	return bytes.TrimSuffix(appendStoreLine(nil, []byte(body)), []byte("\n"))
}
