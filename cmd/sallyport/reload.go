package main

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// A change of the configuration rests for settle before it is read: an editor,
// or a ConfigMap's swap of symlinks, is several changes. Where changes never
// rest, as the event log is written in the same directory, it is read after
// restless.
const (
	settle   = 200 * time.Millisecond
	restless = time.Second
)

// watchConfig calls reload after each change of the configuration at path and
// each signal on hangup, one call at a time, until ctx ends. It watches the
// directory, not the file: editors and ConfigMaps put a new file in the old
// one's place. Where the directory cannot be watched, hangup still works.
func (d *daemon) watchConfig(ctx context.Context, path string, hangup <-chan os.Signal) error {
	var events <-chan fsnotify.Event
	if watcher, err := d.newWatcher(path); err != nil {
		d.log.Warn().Err(err).Msg("the configuration is not watched; reload with SIGHUP")
	} else if watcher != nil {
		defer watcher.Close()
		events = watcher.Events
	}
	var due <-chan time.Time
	var since time.Time // of the first change that was not looked at
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangup:
			d.alerts.Reopen()
			d.reload(path)
		case _, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			if due == nil {
				since = time.Now()
			}
			due = time.After(min(settle, restless-time.Since(since)))
		case <-due:
			due = nil
			if d.sourcesChanged(path) {
				d.reload(path)
			}
		}
	}
}

// newWatcher watches the directory of the configuration; nil without error for
// the embedded one.
func (d *daemon) newWatcher(path string) (*fsnotify.Watcher, error) {
	if path == "" {
		return nil, nil
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	dir := path
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		dir = filepath.Dir(path)
	}
	if err := watcher.Add(dir); err != nil {
		watcher.Close()
		return nil, err
	}
	return watcher, nil
}

// A pacer spreads a long work over time, so that one processor serves others
// beside it. The zero pacer is ready.
type pacer struct{ since time.Time }

// Work goes on for paceWork at most before a pause of pacePause, in which Go
// looks for what the network has brought: to yield would not be enough, as
// whoever is ready to run goes before that.
const (
	paceWork  = 500 * time.Microsecond
	pacePause = 100 * time.Microsecond
)

// rest pauses where it is time to.
func (p *pacer) rest() {
	if time.Since(p.since) < paceWork {
		return
	}
	time.Sleep(pacePause) //nolint:forbidigo // nothing is waited for: to sleep is to let others work
	p.since = time.Now()
}
