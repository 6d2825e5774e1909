package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"sallyport/alerting"
)

// newRun serves until SIGTERM or SIGINT.
func newRun() *cobra.Command {
	var options runOptions
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Serve",
		Long: `Serve until SIGTERM or SIGINT; then refuse new work, and let open connections
finish for limits.drain_timeout, or until a second such signal. Without -c, the
embedded configuration serves loopback clients as pool "default". SIGHUP, or a
change of the configuration, reloads it; an invalid one changes nothing.`,
		Example: "  sallyport run\n  sallyport run -c /etc/sallyport/sallyport.yaml",
		Args:    configByFlag,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// -c "$CONF" with CONF unset must not serve what nobody chose.
			if cmd.Flags().Changed("config") && options.config == "" {
				return &exitError{exitUsage, errors.New("-c is empty; name a file or a directory, or leave -c out for the embedded configuration")}
			}
			options.uidSaid = cmd.Flags().Changed("uid")
			options.stdout, options.stderr = cmd.OutOrStdout(), cmd.ErrOrStderr()
			return serve(cmd.Context(), options)
		},
	}
	cmd.Flags().StringVarP(&options.config, "config", "c", "", "configuration: a file, or a directory whose *.yaml are merged")
	cmd.Flags().BoolVar(&options.pprof, "pprof", false, "serve /debug/pprof/ on the control listener")
	options.enforcementFlags.add(cmd)
	return cmd
}

// runOptions is what the command line says to serve.
type runOptions struct {
	config string
	pprof  bool
	enforcementFlags
	uidSaid        bool // --uid stands on the command line
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
	followMemoryLimit()
	defer runtime.KeepAlive(makeGCRoom())
	d, err := newDaemon(options, logger)
	if err != nil {
		return err
	}
	if err := d.prepare(); err != nil {
		d.close()
		return &exitError{exitFailed, err}
	}
	d.warnOfNoJob()
	if options.config == "" {
		d.greet(options.stderr)
	}
	if err := d.serve(ctx, hangup); err != nil {
		return &exitError{exitFailed, err}
	}
	return nil
}

// prepare does everything that takes rights. Root goes first, so that all files
// are the user's; what is redirected finds its listeners; the other rights go last.
func (d *daemon) prepare() error {
	for _, step := range []func() error{d.prepareEnforcement, d.becomeUser, d.recallGrants, d.listen, d.openPackets, d.applyFirewall, d.dropPrivileges} {
		if err := step(); err != nil {
			return err
		}
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
	program := os.Args[0] // as it was called: make run has it in this directory only
	proxy, dns := first(d.proxy.Addrs()), first(d.dns.Addrs())
	fmt.Fprintf(w, `Sallyport %s serves loopback clients as pool "default" (presets github-actions and npm).

  allowed:  curl -x http://%s -sI https://github.com
  refused:  curl -x http://%s -sI https://example.com
  a name:   dig @%s -p %s github.com
  why:      %s explain --pool default example.com
  a job:    eval "$(%s env)"

Events follow on standard output, one JSON object a line. Your own policy: %s run -c FILE

`, version, proxy, proxy, dns.Addr(), fmt.Sprint(dns.Port()), program, program, program)
}

// serve runs every part until ctx ends, then drains: new work is refused,
// running work gets drain_timeout, the resolver goes when the proxy needs it no
// more, and the event log is flushed last. It returns the first error of any part.
func (d *daemon) serve(ctx context.Context, hangup <-chan os.Signal) error {
	alerts := start(d.alerts.Run)
	defer alerts.stop()
	back := []func(context.Context) error{
		d.dns.Serve, d.expireRules, d.measureEnforcement, d.watchPackets, tidyMemory,
		func(ctx context.Context) error { return d.watchConfig(ctx, d.options.config, hangup) },
	}
	for i := range d.http {
		back = append(back, d.http[i].serve)
	}
	behind := start(back...)
	defer behind.stop()
	front := start(d.proxy.Serve)
	defer front.stop()
	d.state.Store(stateReady)
	d.alerts.System(alerting.SystemStarted, d.startDetails())
	d.tellGrants()

	var failed error
	select {
	case <-ctx.Done():
	case <-front.ended:
		failed = errors.New("the proxy stopped")
	case <-behind.ended:
		failed = errors.New("a listener stopped")
	case <-alerts.ended:
		failed = errors.New("the event log stopped")
	}
	d.state.Store(stateStopping)
	unhurried := d.hurryOnSignal()
	defer unhurried()
	d.alerts.System(alerting.SystemStopping, map[string]any{"drain_timeout": d.settings.Limits.DrainTimeout.String()})
	for _, g := range []*group{front, behind, alerts} {
		if err := g.stop(); err != nil {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// hurryOnSignal says that the daemon drains, and ends that at the next SIGTERM
// or SIGINT, until the func that it returns is called.
func (d *daemon) hurryOnSignal() (stop func()) {
	again, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(again, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		select {
		case <-again:
			d.log.Info().Msg("told to stop again: what is open is closed now")
			d.proxy.Hurry()
		case <-done:
		}
	}()
	most := d.settings.Limits.DrainTimeout
	d.log.Info().Int("connections", d.proxy.Status().Sessions).Str("at_most", most.String()).
		Msg("stopping: new work is refused, and open connections may finish; a second SIGTERM or SIGINT closes them at once")
	return func() { signal.Stop(again); close(done) }
}

// A group is some parts that run and stop together.
type group struct {
	cancel context.CancelFunc
	ended  chan struct{} // closed when the first of them has ended
	done   chan struct{} // closed when all have
	err    error         // of all; read it after done
}

// start runs parts until the group is stopped.
func start(parts ...func(context.Context) error) *group {
	ctx, cancel := context.WithCancel(context.Background())
	g := &group{cancel: cancel, ended: make(chan struct{}), done: make(chan struct{})}
	results := make(chan error, len(parts))
	for _, part := range parts {
		go func() { results <- part(ctx) }()
	}
	go func() {
		defer close(g.done)
		for i := range parts {
			g.err = errors.Join(g.err, <-results)
			if i == 0 {
				close(g.ended)
			}
		}
	}()
	return g
}

// stop ends the parts, waits for them, and gives their errors.
func (g *group) stop() error {
	g.cancel()
	<-g.done
	return g.err
}
