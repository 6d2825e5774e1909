// Package eventtest holds event lines against the schema of the event log, for
// the tests of every package that makes some.
package eventtest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"sallyport/alerting"
)

// schema compiles the schema of an event line, once.
var schema = sync.OnceValues(func() (*jsonschema.Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(alerting.SchemaJSON()))
	if err != nil {
		return nil, err
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	if err := compiler.AddResource("events.schema.json", doc); err != nil {
		return nil, err
	}
	return compiler.Compile("events.schema.json")
})

// ValidateLines fails the test for every line of r that is no event line, and
// for a last line without newline. It returns the events.
func ValidateLines(t testing.TB, r io.Reader) []alerting.Event {
	t.Helper()
	var events []alerting.Event
	lines := bufio.NewReader(r)
	for n := 1; ; n++ {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 {
			return events
		}
		if err != nil {
			t.Errorf("line %d: %v: %q", n, err, line)
			return events
		}
		if err := ValidateLine(line); err != nil {
			t.Errorf("line %d: %v: %s", n, err, line)
			continue
		}
		event, err := alerting.ParseEvent(line)
		if err != nil {
			t.Errorf("line %d: %v: %s", n, err, line)
		}
		events = append(events, event)
	}
}

// ValidateLine holds one line, with or without its newline, against the schema.
func ValidateLine(line []byte) error {
	compiled, err := schema()
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return err
	}
	return compiled.Validate(value)
}
