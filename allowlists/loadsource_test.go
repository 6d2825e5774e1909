package allowlists_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"sallyport/allowlists"
)

// write makes a file below dir.
func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadSources(t *testing.T) {
	dir := t.TempDir()
	// As Kubernetes mounts a ConfigMap: files are links through ..data.
	write(t, dir, "..2026_11_23/b.yaml", "b")
	write(t, dir, "..2026_11_23/a.yaml", "a")
	for _, link := range [][2]string{{"..2026_11_23", "..data"}, {"..data/a.yaml", "a.yaml"}, {"..data/b.yaml", "b.yaml"}} {
		if err := os.Symlink(link[0], filepath.Join(dir, link[1])); err != nil {
			t.Fatal(err)
		}
	}
	write(t, dir, ".hidden.yaml", "hidden")
	write(t, dir, "notes.txt", "notes")
	write(t, dir, "c.yml", "other extension")
	sources, err := allowlists.ReadSources(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names, texts []string
	for _, s := range sources {
		names, texts = append(names, s.Name), append(texts, string(s.Text))
	}
	if want := []string{filepath.Join(dir, "a.yaml"), filepath.Join(dir, "b.yaml")}; !slices.Equal(names, want) || !slices.Equal(texts, []string{"a", "b"}) {
		t.Errorf("%q %q, want %q", names, texts, want)
	}
	if skipped, want := allowlists.SkippedFiles(dir), []string{filepath.Join(dir, "c.yml"), filepath.Join(dir, "notes.txt")}; !slices.Equal(skipped, want) {
		t.Errorf("skipped %q, want %q", skipped, want)
	}
	if skipped := allowlists.SkippedFiles(filepath.Join(dir, "b.yaml")); skipped != nil {
		t.Errorf("beside one file, %q are skipped", skipped)
	}
	if one, err := allowlists.ReadSources(filepath.Join(dir, "b.yaml")); err != nil || len(one) != 1 || string(one[0].Text) != "b" {
		t.Errorf("%v %v", one, err)
	}
}

func TestReadSourcesRefuses(t *testing.T) {
	empty := t.TempDir()
	write(t, empty, "notes.txt", "")
	nested := t.TempDir()
	write(t, nested, "sub.yaml/x", "")
	large := t.TempDir()
	path := write(t, large, "large.yaml", "")
	if err := os.Truncate(path, 65<<20); err != nil {
		t.Fatal(err)
	}
	dangling := t.TempDir()
	if err := os.Symlink("nowhere", filepath.Join(dangling, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	for what, path := range map[string]string{
		"a path that is not there": filepath.Join(empty, "none"), "a directory without *.yaml": empty,
		"a directory called *.yaml": nested, "a file beyond the bound": path, "files beyond the bound": large,
		"a link to nowhere": dangling,
	} {
		if _, err := allowlists.ReadSources(path); err == nil {
			t.Errorf("%s is read", what)
		}
	}
}

func TestEmbeddedConfiguration(t *testing.T) {
	f, report := allowlists.LoadWith(allowlists.Embedded(), testEnv, today, testPresets, nil)
	if f == nil {
		t.Fatal(report.Err())
	}
	p := f.Policy.Pool("default")
	if p == nil || p.Spec().Mode != allowlists.Enforce || !slices.Equal(p.Spec().Presets, []string{"github-actions", "npm"}) || len(p.Spec().Sources) != 2 || f.Spec.DefaultPool != "" {
		t.Errorf("%+v", f.Spec)
	}
}
