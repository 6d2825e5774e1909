package allowlists_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sallyport/allowlists"
)

// What serves meanwhile waits for the longest stretch without a rest: the text,
// its values and its rules each have theirs.
func TestLoadGentlyRestsThroughout(t *testing.T) {
	t.Parallel()
	const rules = 2000
	var text strings.Builder
	text.WriteString("pools:\n  build:\n    sources: [127.0.0.1]\n    allow:\n")
	for i := range rules {
		fmt.Fprintf(&text, "      - name%d.allowed.example\n", i)
	}
	rests := 0
	file, report := allowlists.LoadGently([]allowlists.Source{{Name: "sallyport.yaml", Text: []byte(text.String())}}, nil, time.Now(), func() { rests++ })
	if file == nil {
		t.Fatal(report.Err())
	}
	// reads of 512 bytes, values 64 at once, then variables, rules and lint
	if least := text.Len()/512 + rules/64 + 3*rules; rests < least {
		t.Errorf("%d rests, fewer than %d", rests, least)
	}
}
