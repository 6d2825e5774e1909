package importers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"sallyport/allowlists/diag"
)

// maxDepth bounds how deep JSON may nest.
const maxDepth = 100

// A jsonReader makes nodes of JSON, which YAML's parser does not take in every
// form that others write.
type jsonReader struct {
	*json.Decoder
	file string
	text []byte
	line int
	at   int64 // where line was counted to
}

// parseJSON reads a JSON source.
func (d *draft) parseJSON(text []byte) (*diag.Node, error) {
	if len(text) > maxTree {
		return nil, errTooLarge
	}
	r := &jsonReader{Decoder: json.NewDecoder(bytes.NewReader(text)), file: d.file, text: text, line: 1}
	r.UseNumber()
	root, err := r.value(0)
	if err == nil {
		if _, err = r.Token(); errors.Is(err, io.EOF) {
			return root, nil
		}
		err = errors.New("something follows the end of the document")
	}
	return nil, fault(r.place(), "this is no JSON: %s", clean(err.Error()))
}

// place is where the reader has come to.
func (r *jsonReader) place() diag.Place {
	if to := r.InputOffset(); to > r.at {
		r.line += bytes.Count(r.text[r.at:to], []byte("\n"))
		r.at = to
	}
	return diag.Place{Pos: diag.Pos{File: r.file, Line: r.line, Col: 1}}
}

func (r *jsonReader) value(depth int) (*diag.Node, error) {
	if depth > maxDepth {
		return nil, errors.New("it nests too deep")
	}
	token, err := r.Token()
	if err != nil {
		return nil, err
	}
	n := &diag.Node{Place: r.place()}
	switch v := token.(type) {
	case nil:
		n.Kind = diag.Null
	case bool:
		n.Kind, n.Text = diag.Bool, fmt.Sprint(v)
	case json.Number:
		n.Kind, n.Text = diag.Number, v.String()
	case string:
		n.Kind, n.Text = diag.Text, v
	case json.Delim:
		if v == '{' {
			n.Kind = diag.Map
			err = r.entries(n, depth)
		} else {
			n.Kind = diag.List
			err = r.items(n, depth)
		}
	}
	return n, err
}

func (r *jsonReader) items(n *diag.Node, depth int) error {
	for r.More() {
		item, err := r.value(depth + 1)
		if err != nil {
			return err
		}
		n.Items = append(n.Items, item)
	}
	_, err := r.Token()
	return err
}

func (r *jsonReader) entries(n *diag.Node, depth int) error {
	seen := make(map[string]bool)
	for r.More() {
		token, err := r.Token()
		if err != nil {
			return err
		}
		key, _ := token.(string)
		if seen[key] {
			return fmt.Errorf("key %q is there twice", key)
		}
		seen[key] = true
		at := r.place()
		value, err := r.value(depth + 1)
		if err != nil {
			return err
		}
		n.Entries = append(n.Entries, diag.Entry{Key: key, Place: at, Value: value})
	}
	_, err := r.Token()
	return err
}
