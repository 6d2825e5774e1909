//go:build linux

package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// reloadTunnels sets up tunnels, 4 at once, while the subject reloads its
// rules; one that is steady does not.
func reloadTunnels(w *world, s *subject) Sample {
	c, err := newClient(s)
	if err != nil {
		return failed(err)
	}
	return whileReloading(s, func() Sample { return hammer(s.pid, 4, 2*w.length, c.setUp) })
}

// reloadAnswers asks, 4 questions at once, while the subject reloads.
func reloadAnswers(w *world, s *subject) Sample {
	q := quiz{next: inTurn(ruleNames(10)), sockets: 1, flying: 4, length: 2 * w.length}
	return whileReloading(s, func() Sample { return hold(s, q) })
}

// whileReloading runs a load in whose middle the subject reloads.
func whileReloading(s *subject, load func() Sample) Sample {
	if s.name == "sallyport-steady" {
		return load()
	}
	var took time.Duration
	var failure error
	var reloading sync.WaitGroup
	reloading.Go(func() {
		time.Sleep(settle)
		took, failure = s.reload()
	})
	out := load()
	reloading.Wait()
	if failure != nil {
		return failed(failure)
	}
	out.Values[reloadTime] = float64(took.Microseconds()) / 1e3
	return out
}

// reload changes the subject's configuration, and returns how long it takes
// until it is applied.
func (s *subject) reload() (time.Duration, error) {
	before, err := s.reloads()
	if err != nil {
		return 0, err
	}
	path := s.dir + "/sallyport.yaml"
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	text = fmt.Appendf(text, "      - more%d.allowed.example\n", time.Now().UnixNano())
	if err := os.WriteFile(path+".new", text, 0o644); err != nil {
		return 0, err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return 0, err
	}
	began := time.Now()
	if err := syscall.Kill(s.pid, syscall.SIGHUP); err != nil {
		return 0, err
	}
	err = s.process.await(func() error {
		time.Sleep(5 * time.Millisecond)
		now, err := s.reloads()
		if err == nil && now == before {
			err = fmt.Errorf("no reload was applied")
		}
		return err
	})
	return time.Since(began), err
}

// reloads is the line of the metrics page that counts reloads that were applied.
func (s *subject) reloads() (string, error) {
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get("http://" + s.admin + "/metrics")
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, `sallyport_policy_reloads_total{outcome="applied"}`) {
			return strings.TrimSpace(line), nil
		}
	}
	return "", nil
}
