//go:build linux

package main

import (
	"bytes"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// programs are the small programs around peers' modules. They are no packages
// of this module, so that it does not depend on what they do.
//
//go:embed testdata/goproxy testdata/miekg testdata/coredns
var programs embed.FS

// A peerModule is a Go module of a peer, and what is built of it.
type peerModule struct {
	module  string // with its version
	pkg     string // to build; "." is the small program in testdata
	program string // file of programs; empty if pkg is the module's own
}

// peerModules are the peers that are built here. The versions are those that
// the figures of docs/performance.md were made with; goproxy and miekg/dns
// have the versions of our own go.mod.
var peerModules = map[string]peerModule{
	"goproxy":     {"github.com/elazarl/goproxy@v1.9.2", ".", "testdata/goproxy/main.go"},
	"miekg":       {"github.com/miekg/dns@v1.1.73", ".", "testdata/miekg/main.go"},
	"coredns":     {"github.com/coredns/coredns@v1.15.0", ".", "testdata/coredns/main.go"},
	"smokescreen": {"github.com/stripe/smokescreen@latest", "github.com/stripe/smokescreen", ""},
}

// modules builds peers in modules of their own, and keeps them in the user's
// cache for the next time.
type modules struct {
	failed map[string]error // peers that could not be built are not tried again
}

// build returns a peer's program and its version.
func (m *modules) build(name string) (program, version string, err error) {
	if err := m.failed[name]; err != nil {
		return "", "", err
	}
	program, err = buildPeer(name)
	if err != nil {
		err = fmt.Errorf("%s: %w: %w", name, errMissing, err)
		m.failed[name] = err
		return "", "", err
	}
	return program, strings.Replace(peerModules[name].module, "@", " ", 1), nil
}

// buildPeer is the path of a built peer.
func buildPeer(name string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	peer := peerModules[name]
	dir := filepath.Join(cache, "sallyport-bench", strings.NewReplacer("/", "-", "@", "-").Replace(peer.module))
	var source []byte
	if peer.program != "" {
		if source, err = programs.ReadFile(peer.program); err != nil {
			return "", err
		}
	}
	program := filepath.Join(dir, name)
	if built, err := os.ReadFile(dir + "/main.go"); err == nil && bytes.Equal(built, source) {
		if _, err := os.Stat(program); err == nil {
			return program, nil
		}
	}
	fmt.Fprintf(os.Stderr, "building %s of %s\n", name, peer.module)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(dir+"/go.mod", []byte("module peer\n"), 0o644); err != nil {
		return "", err
	}
	if err := os.WriteFile(dir+"/main.go", source, 0o644); err != nil {
		return "", err
	}
	steps := [][]string{{"get", peer.module}}
	if source != nil {
		steps = append(steps, []string{"mod", "tidy"})
	}
	for _, args := range append(steps, []string{"build", "-o", program, peer.pkg}) {
		if err := goCommand(dir, args...); err != nil {
			return "", err
		}
	}
	return program, nil
}

// goCommand runs the go command in a directory, with the user's GOPROXY.
func goCommand(dir string, args ...string) error {
	command := exec.Command("go", args...)
	command.Dir = dir
	command.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", "CGO_ENABLED=0")
	text, err := command.CombinedOutput()
	if err != nil {
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		return fmt.Errorf("go %s: %w: %s", args[0], err, strings.Join(lines[max(0, len(lines)-2):], "; "))
	}
	return nil
}
