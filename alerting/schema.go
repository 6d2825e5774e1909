package alerting

import (
	"encoding/json"
	"slices"

	"sallyport/allowlists"
)

// An EventField describes one field of an event line. The tables below are
// what docs/events.md and docs/events.schema.json are made from, and what
// tests hold the encoder against.
type EventField struct {
	Name     string
	Shape    string // a key of fieldShapes
	Required bool   // in every line of the kind
	Meaning  string // for a reader of docs/events.md
}

// fieldShapes are the JSON Schemas of values, by name.
var fieldShapes = map[string]map[string]any{
	"version":    {"const": eventVersion},
	"time":       {"type": "string", "pattern": `^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$`},
	"kind":       {"enum": EventKinds()},
	"text":       {"type": "string", "minLength": 1, "maxLength": 1025},
	"any text":   {"type": "string", "maxLength": 1025},
	"address":    {"type": "string", "anyOf": []any{map[string]any{"format": "ipv4"}, map[string]any{"format": "ipv6"}}},
	"addresses":  {"type": "array", "items": map[string]any{"$ref": "#/$defs/address"}, "maxItems": 64},
	"texts":      {"type": "array", "items": map[string]any{"$ref": "#/$defs/text"}, "maxItems": 64},
	"port":       {"type": "integer", "minimum": 1, "maximum": 65535},
	"count":      {"type": "integer", "minimum": 0},
	"flag":       {"type": "boolean"},
	"true":       {"const": true},
	"number":     {"type": "number", "minimum": 0},
	"verdict":    {"enum": []string{allowlists.Allow.String(), allowlists.Deny.String()}},
	"reason":     {"enum": reasonNames()},
	"asker":      {"enum": []string{ByClient, ByProxy}},
	"way":        {"enum": []string{"connect", "http", "tls", "tcp", "udp", "icmp", "other"}},
	"phase":      {"enum": EventPhases()},
	"mnemonic":   {"type": "string", "pattern": "^[A-Z0-9]+$"},
	"alert name": {"type": "string", "pattern": "^[a-z]+(-[a-z]+)*$"},
	"severity":   {"enum": []string{"info", "medium", "high", "critical"}},
	"job": {
		"type": "object", "additionalProperties": false,
		"properties": map[string]any{"repo": ref("text"), "workflow": ref("text"), "run_id": ref("text"), "job": ref("text"), "ref": ref("text")},
	},
	"details": {
		"type":                 "object",
		"additionalProperties": map[string]any{"anyOf": []any{ref("any text"), map[string]any{"type": []string{"boolean", "number"}}, ref("texts")}},
	},
}

// EventKinds lists the kinds of event.
func EventKinds() []string { return []string{KindDNS, KindConn, KindAlert, KindSystem} }

// EventPhases lists the phases of a conn event.
func EventPhases() []string { return []string{PhaseRefused, PhaseOpen, PhaseProgress, PhaseClose} }

func reasonNames() []string {
	var names []string
	for _, reason := range allowlists.Reasons() {
		names = append(names, reason.String())
	}
	return names
}

func ref(shape string) map[string]any { return map[string]any{"$ref": "#/$defs/" + shape} }

// EventFields gives the fields of a kind, in the order of the line.
func EventFields(kind string) []EventField {
	fields := slices.Clone(eventHead)
	switch kind {
	case KindDNS:
		fields = append(fields, dnsFields...)
	case KindConn:
		fields = append(fields, connFields...)
	case KindAlert:
		fields = append(fields, alertFields...)
	case KindSystem:
		fields = slices.DeleteFunc(fields, func(f EventField) bool { return f.Name == "id" })
		fields = append(fields, systemFields...)
	}
	if kind == KindDNS || kind == KindConn {
		for i := range fields {
			fields[i].Required = fields[i].Required || fields[i].Name == "client"
		}
	}
	return fields
}

// EventSchema is the JSON Schema (draft 2020-12) of one event line; it is what
// docs/events.schema.json holds. Every call makes a new one.
func EventSchema() map[string]any {
	defs := make(map[string]any)
	for name, shape := range fieldShapes {
		defs[name] = shape
	}
	var kinds []any
	for _, kind := range EventKinds() {
		properties, required := make(map[string]any), []string{}
		for _, field := range EventFields(kind) {
			properties[field.Name] = ref(field.Shape)
			if field.Required {
				required = append(required, field.Name)
			}
		}
		properties["kind"] = map[string]any{"const": kind}
		schema := map[string]any{
			"type": "object", "properties": properties, "required": required, "additionalProperties": false,
		}
		if rules := kindRules[kind]; rules != nil {
			schema["allOf"] = rules
		}
		defs[kind] = schema
		kinds = append(kinds, map[string]any{
			"if":   map[string]any{"properties": map[string]any{"kind": map[string]any{"const": kind}}},
			"then": ref(kind),
		})
	}
	return map[string]any{
		"$schema":  "https://json-schema.org/draft/2020-12/schema",
		"title":    "Sallyport event",
		"type":     "object",
		"required": []string{"v", "time", "kind"},
		"properties": map[string]any{
			"v": ref("version"), "time": ref("time"), "kind": ref("kind"),
		},
		"allOf": kinds, "$defs": defs,
	}
}

// auditRule says that would is there exactly where audit let something through.
var auditRule = when("reason", []string{allowlists.AllowedByAudit.String()},
	map[string]any{"required": []string{"would"}, "properties": map[string]any{"verdict": map[string]any{"const": "allow"}}},
	map[string]any{"properties": map[string]any{"would": false}})

// kindRules are what the fields of a line have to do with each other.
var kindRules = map[string][]any{
	KindDNS: {auditRule},
	KindConn: {
		auditRule,
		when("phase", []string{PhaseProgress, PhaseClose},
			map[string]any{"required": []string{"sent", "received"}},
			map[string]any{"properties": map[string]any{"sent": false, "received": false}}),
		when("phase", []string{PhaseOpen}, map[string]any{"properties": map[string]any{"verdict": map[string]any{"const": "allow"}}}, nil),
	},
}

func when(field string, values []string, then, otherwise map[string]any) map[string]any {
	rule := map[string]any{
		"if":   map[string]any{"properties": map[string]any{field: map[string]any{"enum": values}}},
		"then": then,
	}
	if otherwise != nil {
		rule["else"] = otherwise
	}
	return rule
}

// SchemaJSON is EventSchema as text, indented, with its newline.
func SchemaJSON() []byte {
	text, err := json.MarshalIndent(EventSchema(), "", "  ")
	if err != nil {
		panic(err) // the schema is made of maps, lists and texts
	}
	return append(text, '\n')
}
