package allowlists

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// A Source is one file of a configuration.
type Source struct {
	Name string // as problems and events show it
	Text []byte
}

// maxConfigBytes bounds all files of a configuration together; 100,000 rules
// take about 5 MB.
const maxConfigBytes = 64 << 20

// errTooLarge says that a file goes beyond its bound.
var errTooLarge = errors.New("the file is too large")

// ReadSources reads a configuration: one file, or every *.yaml of a directory
// in the order of their names. Symbolic links are followed, as Kubernetes
// makes a ConfigMap of them; hidden entries are skipped. A directory without
// any *.yaml is an error, as it is more likely a wrong path than a wish to
// refuse everyone.
func ReadSources(path string) ([]Source, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	if !info.IsDir() {
		text, err := readConfig(path, maxConfigBytes)
		if err != nil {
			return nil, err
		}
		return []Source{{Name: path, Text: text}}, nil
	}
	entries, err := os.ReadDir(path) // sorted by name
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	var sources []Source
	left := maxConfigBytes
	for _, e := range entries {
		if isHidden(e) || !isConfig(e) {
			continue
		}
		name := filepath.Join(path, e.Name())
		text, err := readConfig(name, left)
		if err != nil {
			return nil, err
		}
		left -= len(text)
		sources = append(sources, Source{Name: name, Text: text})
	}
	if len(sources) == 0 {
		return nil, fmt.Errorf("reading the configuration: %s holds no *.yaml file", path)
	}
	return sources, nil
}

// SkippedFiles are the files of a configuration directory that ReadSources
// passes over for their names, hidden ones aside; none for a path that is a
// file or cannot be read.
func SkippedFiles(path string) []string {
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil
	}
	var skipped []string
	for _, e := range entries {
		if !isHidden(e) && !isConfig(e) && !e.IsDir() {
			skipped = append(skipped, filepath.Join(path, e.Name()))
		}
	}
	return skipped
}

func isHidden(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), ".") }
func isConfig(e os.DirEntry) bool { return filepath.Ext(e.Name()) == ".yaml" }

// readConfig reads one regular file of at most limit bytes.
func readConfig(path string, limit int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		return nil, fmt.Errorf("reading the configuration: %s is a directory", path)
	}
	var text []byte
	if err == nil && info.Size() > int64(limit) {
		err = errTooLarge
	}
	if err == nil {
		text, err = readSized(f, int(info.Size()), limit)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %s: %w", path, err)
	}
	return text, nil
}

// readSized is readBounded for what is size bytes long, if nobody changes it.
func readSized(r io.Reader, size, limit int) ([]byte, error) {
	text := bytes.NewBuffer(make([]byte, 0, size+bytes.MinRead))
	_, err := text.ReadFrom(io.LimitReader(r, int64(limit)+1))
	if err == nil && text.Len() > limit {
		return nil, errTooLarge
	}
	return text.Bytes(), err
}

// readBounded reads at most limit bytes; more is errTooLarge.
func readBounded(r io.Reader, limit int) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err == nil && len(text) > limit {
		return nil, errTooLarge
	}
	return text, err
}
