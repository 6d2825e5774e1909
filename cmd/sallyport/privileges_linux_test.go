package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestRestrictedFiles lets a process of its own restrict itself, as a daemon
// whose log is a link to elsewhere, and try what it may.
func TestRestrictedFiles(t *testing.T) {
	if dir := os.Getenv(restrictedVar); dir != "" {
		restrictedFiles(dir)
		return
	}
	dir := t.TempDir()
	for _, name := range []string{"state", "log", "far", "other"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "old"), []byte("old"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../far/old", filepath.Join(dir, "log", "events")); err != nil {
		t.Fatal(err)
	}
	child := exec.Command(os.Args[0], "-test.run=^TestRestrictedFiles$")
	child.Env = append(os.Environ(), restrictedVar+"="+dir)
	out, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.HasPrefix(string(out), "SKIP") {
		if os.Getenv("SALLYPORT_CI") == "1" {
			t.Fatal("CI must have Landlock")
		}
		t.Skip("SKIPPED on this machine: needs Landlock")
	}
	for _, want := range []string{
		"read other/old: may", "create state/new: may", "remove state/new: may", "create log/new: may", "append log/events: may",
		"create other/new: may not", "append other/old: may not", "truncate other/old: may not", "remove other/old: may not",
		"create by a link: may not", "execute: may not",
	} {
		if !strings.Contains(string(out), want+"\n") {
			t.Errorf("not so: %s", want)
		}
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}

func restrictedFiles(dir string) {
	var d daemon
	d.settings.Alerts.StateDir = filepath.Join(dir, "state")
	d.settings.Log.Events = filepath.Join(dir, "log", "events")
	if err := d.restrictFiles(); err != nil {
		fmt.Fprintln(os.Stdout, err)
		return
	}
	if d.privileges.Landlock == "none" || d.privileges.Landlock == "" {
		fmt.Fprintln(os.Stdout, "SKIP")
		return
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	open := func(name string, flags int) error {
		file, err := os.OpenFile(at(name), flags, 0o644)
		if err == nil {
			err = file.Close()
		}
		return err
	}
	say := func(what string, err error) {
		switch {
		case err == nil:
			fmt.Fprintln(os.Stdout, what+": may")
		case errors.Is(err, fs.ErrPermission):
			fmt.Fprintln(os.Stdout, what+": may not")
		default:
			fmt.Fprintln(os.Stdout, what+":", err)
		}
	}
	say("read other/old", open("other/old", os.O_RDONLY))
	for _, name := range []string{"state/new", "log/new", "other/new"} {
		say("create "+name, open(name, os.O_WRONLY|os.O_CREATE))
	}
	say("remove state/new", os.Remove(at("state/new")))
	say("append log/events", open("log/events", os.O_WRONLY|os.O_APPEND))
	say("append other/old", open("other/old", os.O_WRONLY|os.O_APPEND))
	say("truncate other/old", os.Truncate(at("other/old"), 0))
	say("remove other/old", os.Remove(at("other/old")))
	say("create by a link", errors.Join(os.Symlink("../other/linked", at("state/link")), open("state/link", os.O_WRONLY|os.O_CREATE)))
	say("execute", exec.Command(os.Args[0], "-test.run=^$").Run())
}
