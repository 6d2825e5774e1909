package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"sallyport/allowlists"
)

// grantAsides is how many files of grants that could not be read are kept.
const grantAsides = 3

// readGrants reads the file of grants: neither through a link, nor waiting for
// the writer of a pipe, nor more of it than there can be.
func readGrants(path string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, errors.New("it is no file"))
	}
	text, err := io.ReadAll(io.LimitReader(file, allowlists.MaxGrantBytes+1))
	if err == nil && len(text) > allowlists.MaxGrantBytes {
		err = fmt.Errorf("it has more than %d bytes", allowlists.MaxGrantBytes)
	}
	return text, err
}

// addKeptGrants puts the grants that alerts.state_dir has into the policy of a
// configuration, as a daemon has them that runs with it.
func addKeptGrants(file *allowlists.File, now time.Time) error {
	if file.Settings.Alerts.StateDir == "" {
		return nil
	}
	text, err := readGrants(filepath.Join(file.Settings.Alerts.StateDir, grantsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var live []allowlists.Grant
	if err == nil {
		live, _, err = allowlists.ReadGrants(text, file.Policy, now)
	}
	if err != nil {
		return err
	}
	policy, err := file.Policy.WithGrants(live)
	if err == nil {
		file.Policy = policy
	}
	return err
}

// setGrantsAside renames a file that cannot be read, for whoever looks at it, and
// removes the oldest of those.
func setGrantsAside(path string, now time.Time) error {
	if err := os.Rename(path, path+".damaged-"+now.UTC().Format("20060102T150405.000")); err != nil {
		return err
	}
	asides, err := filepath.Glob(path + ".damaged-*")
	slices.Sort(asides)
	for len(asides) > grantAsides {
		err = errors.Join(err, os.RemoveAll(asides[0]))
		asides = asides[1:]
	}
	syncDir(filepath.Dir(path))
	return err
}

// errNotKept is inside the error of what could not be kept.
var errNotKept = errors.New("keeping what is granted")

// keep writes what is live, whole at once. mu is held.
func (g *grants) keep(now time.Time) error {
	g.kept = now
	if g.path == "" {
		return nil
	}
	text, err := allowlists.EncodeGrants(g.live, now)
	if err != nil {
		return err
	}
	temporary, err := os.CreateTemp(filepath.Dir(g.path), grantsFile+".*.new") // of mode 0600
	if err != nil {
		return fmt.Errorf("%w: %w", errNotKept, err)
	}
	_, err = temporary.Write(text)
	err = errors.Join(err, temporary.Sync(), temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), g.path)
	}
	if err != nil {
		os.Remove(temporary.Name())
		return fmt.Errorf("%w: %w", errNotKept, err)
	}
	syncDir(filepath.Dir(g.path))
	return nil
}

// keepOn keeps what is left of the grants that hold, if that was not done for so
// long: a restart after which the clock is behind gives none more than that.
func (g *grants) keepOn(now time.Time, every time.Duration, log zerolog.Logger) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.live) == 0 || now.Sub(g.kept) < every {
		return
	}
	if err := g.keep(now); err != nil {
		log.Warn().Err(err).Msg("a restart may find more left of a grant than there is")
	}
}

// syncDir makes a rename in a directory last, where its file system can.
func syncDir(dir string) {
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync()
		d.Close()
	}
}
