package webui

import (
	"fmt"
	"testing"
	"time"
)

// TestGuessersAreBounded has more clients guess than are remembered, with and
// without an address.
func TestGuessersAreBounded(t *testing.T) {
	var g guesses
	now := time.Now()
	for i := range 3 * maxGuessers {
		g.count(fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255), now)
		g.count("@", now)
		if len(g.clean) > maxGuessers {
			t.Fatalf("%d are remembered", len(g.clean))
		}
	}
	if !g.tooMany("@", now) {
		t.Error("who guessed most is forgotten")
	}
}
