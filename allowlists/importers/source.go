package importers

import (
	"bytes"
	"regexp"
	"strings"

	"sallyport/allowlists/diag"
)

// keyed reports whether a text has a line that gives a key of a mapping, and so
// is more than a list of words.
func keyed(text []byte) bool {
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if bytes.HasSuffix(line, []byte(":")) || bytes.Contains(line, []byte(": ")) || bytes.HasPrefix(line, []byte("{")) {
			return true
		}
	}
	return false
}

// A word is a part of a text, and the line it stands in.
type word struct {
	text string
	line int
}

// expression is one of GitHub's, in which blanks may stand.
var expression = regexp.MustCompile(`\$\{\{[^\n]*?\}\}`)

// words splits the text of a node at any of the separators. Lines count from
// where the node begins; those of a folded text are not kept by YAML, so that
// they are those of its beginning.
func words(n *diag.Node, separators string) []word {
	var out []word
	line := n.Pos.Line
	if line == 0 {
		line = 1
	}
	whole := expression.ReplaceAllStringFunc(n.Text, func(text string) string { return strings.Join(strings.Fields(text), "") })
	for row := range strings.SplitSeq(whole, "\n") {
		for _, text := range strings.FieldsFunc(row, func(c rune) bool { return strings.ContainsRune(separators, c) }) {
			out = append(out, word{text, line})
		}
	}
	return out
}

// textItems gives the texts of a list, or one text as it is. What is neither is
// nothing.
func textItems(n *diag.Node) []*diag.Node {
	switch {
	case n == nil:
		return nil
	case n.Kind == diag.List:
		var out []*diag.Node
		for _, item := range n.Items {
			if scalar(item) {
				out = append(out, item)
			}
		}
		return out
	case scalar(n):
		return []*diag.Node{n}
	default:
		return nil
	}
}

// scalar reports whether a node has a text.
func scalar(n *diag.Node) bool {
	return n != nil && (n.Kind == diag.Text || n.Kind == diag.Number || n.Kind == diag.Bool)
}

// textOf is the text of a key of a mapping, "" without one.
func textOf(n *diag.Node, key string) string {
	if n == nil {
		return ""
	}
	if value := n.Get(key); scalar(value) {
		return value.Text
	}
	return ""
}

// strangers are the items of a list that are no text, which no format has.
func strangers(n *diag.Node) []*diag.Node {
	if n == nil || n.Kind == diag.Null {
		return nil
	}
	if n.Kind != diag.List {
		return []*diag.Node{n}
	}
	var out []*diag.Node
	for _, item := range n.Items {
		if !scalar(item) {
			out = append(out, item)
		}
	}
	return out
}

// leaveStrangers notes what of a list could not be read.
func (p *pool) leaveStrangers(n *diag.Node, key string) {
	for _, s := range strangers(n) {
		p.entry(s.Pos.Line, key).note(LeftOut, "form", "%s where a text belongs", s.Kind)
	}
}

// An actionInput is the "with" of one step of a workflow.
type actionInput struct {
	job  string
	with *diag.Node
}

// actionInputs finds the steps of a workflow or an action, or of a list of steps
// that was cut from one, that use an action of GitHub. A mapping that has one of
// the keys itself is such a "with".
func actionInputs(root *diag.Node, action string, keys ...string) []actionInput {
	if root.Kind != diag.Map {
		return stepInputs(nil, "", root, action)
	}
	if with := root.Get("with"); with != nil && with.Kind == diag.Map {
		return []actionInput{{with: with}}
	}
	for _, key := range keys {
		if root.Get(key) != nil {
			return []actionInput{{with: root}}
		}
	}
	var out []actionInput
	if runs := root.Get("runs"); runs != nil {
		out = stepInputs(out, "", runs.Get("steps"), action)
	}
	if jobs := root.Get("jobs"); jobs != nil {
		for _, job := range jobs.Entries {
			out = stepInputs(out, job.Key, job.Value.Get("steps"), action)
		}
	}
	return out
}

func stepInputs(out []actionInput, job string, steps *diag.Node, action string) []actionInput {
	if steps == nil {
		return out
	}
	for _, step := range steps.Items {
		uses, _, _ := strings.Cut(textOf(step, "uses"), "@")
		if !strings.EqualFold(uses, action) {
			continue
		}
		with := step.Get("with")
		if with == nil || with.Kind != diag.Map {
			with = &diag.Node{Kind: diag.Map, Place: step.Place}
		}
		out = append(out, actionInput{job, with})
	}
	return out
}

// below is the value at a path of keys, nil if there is none.
func below(n *diag.Node, keys ...string) *diag.Node {
	for _, key := range keys {
		if n == nil || n.Kind != diag.Map {
			return nil
		}
		n = n.Get(key)
	}
	return n
}
