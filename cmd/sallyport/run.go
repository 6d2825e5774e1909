package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
)

// newRun serves until SIGTERM or SIGINT.
func newRun() *cobra.Command {
	var options runOptions
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Serve",
		Long: `Serve until SIGTERM or SIGINT. Without -c, the embedded configuration serves
loopback clients as pool "default". SIGHUP, or a change of the configuration,
reloads it; an invalid one changes nothing.`,
		Example: "  sallyport run\n  sallyport run -c /etc/sallyport/sallyport.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			options.stdout, options.stderr = cmd.OutOrStdout(), cmd.ErrOrStderr()
			return serve(cmd.Context(), options)
		},
	}
	cmd.Flags().StringVarP(&options.config, "config", "c", "", "configuration: a file, or a directory whose *.yaml are merged")
	cmd.Flags().BoolVar(&options.pprof, "pprof", false, "serve /debug/pprof/ on the control listener")
	return cmd
}

// runOptions is what the command line says to serve.
type runOptions struct {
	config         string
	pprof          bool
	stdout, stderr io.Writer
}

// serve loads, binds, serves, and on a signal drains.
func serve(ctx context.Context, options runOptions) error {
	ctx, stop := signal.NotifyContext(orBackground(ctx), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	// A reader of our output that goes away must not take the gate with it.
	signal.Ignore(syscall.SIGPIPE)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)

	logger := zerolog.New(options.stderr).With().Timestamp().Logger()
	d, err := newDaemon(options, logger)
	if err != nil {
		return err
	}
	if err := d.listen(); err != nil {
		d.close()
		return &exitError{exitFailed, err}
	}
	if options.config == "" {
		d.greet(options.stderr)
	}
	if err := d.serve(ctx, hangup); err != nil {
		return &exitError{exitFailed, err}
	}
	return nil
}

func orBackground(ctx context.Context) context.Context {
	if ctx == nil {
		return context.Background()
	}
	return ctx
}

// greet tells a person who started the embedded configuration what to do next.
func (d *daemon) greet(w io.Writer) {
	proxy, dns := first(d.proxy.Addrs()), first(d.dns.Addrs())
	fmt.Fprintf(w, `Sallyport %s serves loopback clients as pool "default" (presets github-actions and npm).

  allowed:  curl -x http://%s -sI https://github.com
  refused:  curl -x http://%s -sI https://example.com
  a name:   dig @%s -p %s github.com
  why:      sallyport explain --pool default example.com
  a job:    eval "$(sallyport env)"

Events follow on standard output, one JSON object a line. Your own policy: sallyport run -c FILE

`, version, proxy, proxy, dns.Addr(), fmt.Sprint(dns.Port()))
}

// serve runs every part until ctx ends, then drains: new work is refused,
// running work gets drain_timeout, and the event log is flushed last. It
// returns the first error of any part.
func (d *daemon) serve(ctx context.Context, hangup <-chan os.Signal) error {
	work, stopWork := context.WithCancelCause(context.Background())
	alerting, stopAlerting := context.WithCancel(context.Background())
	defer stopWork(nil)
	defer stopAlerting()

	alertsDone := make(chan error, 1)
	go func() { alertsDone <- d.alerts.Run(alerting) }()

	parts := []func(context.Context) error{
		d.proxy.Serve, d.dns.Serve, d.expireRules,
		func(ctx context.Context) error { return d.watchConfig(ctx, d.options.config, hangup) },
	}
	for i := range d.http {
		parts = append(parts, d.http[i].serve)
	}
	ended := make(chan error, len(parts))
	for _, part := range parts {
		go func() { ended <- part(work) }()
	}
	d.state.Store(stateReady)
	d.alerts.System("started", d.startDetails())

	var failed error
	running := len(parts)
	select {
	case <-ctx.Done():
	case failed = <-ended:
		running--
	case err := <-alertsDone:
		failed = errors.Join(errors.New("the event log stopped"), err)
		alertsDone <- nil
	}
	d.state.Store(stateStopping)
	d.alerts.System("stopping", map[string]any{"drain_timeout": d.settings.Limits.DrainTimeout.String()})
	stopWork(nil)
	for range running {
		failed = errors.Join(failed, <-ended)
	}
	stopAlerting()
	return errors.Join(failed, <-alertsDone)
}

// expireRules tells the parts when a rule has reached its end, so that what it
// alone allowed is closed within a second.
func (d *daemon) expireRules(ctx context.Context) error {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if d.policy.Load().ExpiresBetween(last, now) {
				d.policyChanged()
			}
			last = now
		}
	}
}
