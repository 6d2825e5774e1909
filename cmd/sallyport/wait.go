package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// newWaitReady waits until the daemon serves; a job's first step, or a
// container's startup probe.
func newWaitReady() *cobra.Command {
	var admin string
	var uid uint32
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:     "wait-ready",
		Short:   "Wait until the daemon is ready",
		Example: "  sallyport wait-ready --timeout 10s && make test",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			if err := checkAdmin(admin); err != nil {
				return err
			}
			standAs(uid)
			return waitReady(ctx, admin)
		},
	}
	cmd.Flags().StringVar(&admin, "admin", "127.0.0.1:9180", "the daemon's admin listener")
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to wait")
	addStandAs(cmd, &uid)
	return cmd
}

// waitReady asks /readyz every 50 ms until it says yes or ctx ends; then the
// error has the daemon's last answer.
func waitReady(ctx context.Context, admin string) error {
	var last error
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := probe(ctx, admin, "/readyz")
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return &exitError{exitFailed, fmt.Errorf("waiting for %s to be ready: %w; is the daemon running, and is this its listen.admin?", admin, last)}
		case <-tick.C:
		}
	}
}

// newHealthcheck asks once; the image's HEALTHCHECK, as scratch has no curl.
func newHealthcheck() *cobra.Command {
	var admin string
	var uid uint32
	cmd := &cobra.Command{
		Use:     "healthcheck",
		Short:   "Ask the daemon once whether it is healthy",
		Example: "  sallyport healthcheck",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), 3*time.Second)
			defer cancel()
			if err := checkAdmin(admin); err != nil {
				return err
			}
			standAs(uid)
			if err := probe(ctx, admin, "/healthz"); err != nil {
				return &exitError{exitFailed, fmt.Errorf("asking %s: %w; is the daemon running, and is this its listen.admin?", admin, err)}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&admin, "admin", "127.0.0.1:9180", "the daemon's admin listener")
	addStandAs(cmd, &uid)
	return cmd
}

// checkAdmin holds --admin against HOST:PORT; the error is an exitError with
// code 2.
func checkAdmin(admin string) error {
	bare := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(admin, "https://"), "http://"), "/")
	_, _, err := net.SplitHostPort(bare)
	switch {
	case err != nil || strings.ContainsRune(bare, '/'):
		return &exitError{exitUsage, fmt.Errorf("--admin %s: write HOST:PORT, such as 127.0.0.1:9180", printable(admin))}
	case bare != admin:
		return &exitError{exitUsage, fmt.Errorf("--admin %s: write it without a scheme: %s", printable(admin), printable(bare))}
	default:
		return nil
	}
}

func addStandAs(cmd *cobra.Command, uid *uint32) {
	cmd.Flags().Uint32Var(uid, "uid", defaultUID, "`number` of the daemon's user; asked as root, this is done as that user, as the firewall of a sidecar closes the admin listener to all others")
}

// standAs becomes the daemon's user, where root asks and may. Who may not asks
// as who he is: outside of a sidecar that is as good.
func standAs(uid uint32) {
	if os.Geteuid() == 0 {
		_ = syscall.Setgroups(nil)
		_ = syscall.Setgid(int(uid))
		_ = syscall.Setuid(int(uid))
	}
}

// probe gets a page of the admin listener and wants status 200. No proxy
// variable has a say: a job's environment names our own proxy.
func probe(ctx context.Context, admin, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+path, nil)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		var withURL *url.Error // the address is in the caller's sentence
		if errors.As(err, &withURL) {
			return withURL.Err
		}
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
		return fmt.Errorf("%s: %s", resp.Status, printable(strings.TrimSpace(string(body))))
	}
	return nil
}
