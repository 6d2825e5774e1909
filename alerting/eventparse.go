package alerting

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"sallyport/allowlists"
)

// errNotOurs is the cause for a line that is JSON but no event of ours.
var errNotOurs = errors.New("not an event of version 1")

// wireEvent is an Event as encoding/json reads it: the fields that need a
// second look beside those that do not.
type wireEvent struct {
	*wireFields
	Version int     `json:"v"`
	Verdict string  `json:"verdict"`
	Reason  string  `json:"reason"`
	Would   string  `json:"would"`
	Millis  float64 `json:"ms"`
}

// wireFields are the fields of Event without its methods.
type wireFields Event

// ParseEvent reads one line of an event log, with or without its newline. A
// line that is not JSON, or not an event of ours, is an error; a field that
// this version does not know is ignored.
func ParseEvent(line []byte) (Event, error) {
	var e Event
	wire := wireEvent{wireFields: (*wireFields)(&e)}
	if err := json.Unmarshal(line, &wire); err != nil {
		return Event{}, fmt.Errorf("reading an event line: %w", err)
	}
	if wire.Version != eventVersion {
		return Event{}, errNotOurs
	}
	switch e.Kind {
	case KindDNS, KindConn:
		if err := wire.decide(&e); err != nil {
			return Event{}, err
		}
	case KindAlert:
	case KindSystem:
		readDetails(e.Details)
	default:
		return Event{}, fmt.Errorf("%w: kind %q", errNotOurs, e.Kind)
	}
	if e.Kind == KindDNS {
		if host, err := allowlists.HostFromDNS(e.Name); err == nil {
			e.Host = host.String()
		}
	}
	return e, nil
}

func (w *wireEvent) decide(e *Event) error {
	switch w.Verdict {
	case allowlists.Allow.String():
		e.Verdict = allowlists.Allow
	case allowlists.Deny.String():
	default:
		return fmt.Errorf("%w: verdict %q", errNotOurs, w.Verdict)
	}
	var known bool
	if e.Reason, known = allowlists.ParseReason(w.Reason); !known {
		return fmt.Errorf("%w: reason %q", errNotOurs, w.Reason)
	}
	if e.Reason == allowlists.AllowedByAudit {
		if e.Would, known = allowlists.ParseReason(w.Would); !known {
			return fmt.Errorf("%w: would %q", errNotOurs, w.Would)
		}
	}
	e.Took = time.Duration(math.Round(w.Millis*1000)) * time.Microsecond
	return nil
}

// readDetails turns the lists of a decoded map into lists of strings.
func readDetails(details map[string]any) {
	for key, value := range details {
		list, ok := value.([]any)
		if !ok {
			continue
		}
		texts := make([]string, len(list))
		for i, item := range list {
			if text, ok := item.(string); ok {
				texts[i] = text
			} else {
				texts[i] = fmt.Sprint(item)
			}
		}
		details[key] = texts
	}
}

// MarshalJSON gives the event's line without its newline.
func (e Event) MarshalJSON() ([]byte, error) {
	w := encoders.Get().(*encoder)
	defer encoders.Put(w)
	line := w.encode(&e)
	return append([]byte(nil), line[:len(line)-1]...), nil
}

// UnmarshalJSON is ParseEvent.
func (e *Event) UnmarshalJSON(line []byte) (err error) {
	*e, err = ParseEvent(line)
	return err
}
