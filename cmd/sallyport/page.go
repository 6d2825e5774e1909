package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os/signal"
	"strings"
	"syscall"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"sallyport/alerting/webui"
)

// newPage opens the way to the page of a running daemon.
func newPage() *cobra.Command {
	var from daemonFlags
	var listen string
	cmd := &cobra.Command{
		Use:   "page",
		Short: "Print a link to the page of the running daemon, for one browser",
		Long: `Print a link that opens the page of the running daemon: live connections and
refusals, what would allow them, alerts, pools and their rules. The link signs
one browser in, once, within five minutes.
Where the control listener is TCP, the daemon makes the link, and this ends.
Where it is a socket, this serves the page on a loopback address until it is
interrupted; it passes on pages and nothing else. From another machine, forward
that port: ssh -L 8080:127.0.0.1:8080 HOST, with --listen 127.0.0.1:8080.`,
		Example: "  sallyport page -c sallyport.yaml\n  sallyport page --control unix:/run/sallyport/control.sock --listen 127.0.0.1:8080",
		Args:    configByFlag,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := from.client(cmd)
			if err != nil {
				return err
			}
			if !strings.HasPrefix(client.address, "unix:") {
				if cmd.Flags().Changed("listen") {
					return &exitError{exitUsage, errors.New("--listen is for a daemon whose listen.control is a socket; this one serves the page at " + client.address)}
				}
				return printPageLink(cmd.OutOrStdout(), client)
			}
			return relayPage(cmd, client, listen)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&from.config, "config", "c", "", "configuration of the daemon, whose listen.control is asked")
	flags.StringVar(&from.control, "control", "", "the daemon's control listener, instead of -c: unix:/path")
	flags.StringVar(&listen, "listen", "127.0.0.1:0", "loopback address to serve the page at, where the control listener is a socket; port 0 takes a free one")
	return cmd
}

// printPageLink has the daemon make a link, and prints it.
func printPageLink(w io.Writer, client controlClient) error {
	var link pageLink
	if err := client.ask(http.MethodPost, "/api/v1/page-links", &link); err != nil {
		return &exitError{exitFailed, err}
	}
	_, err := fmt.Fprintf(w, "http://%s%s\n", reachable(client.address), link.Path)
	return err
}

// reachable is the address of a listener as one on its machine reaches it.
func reachable(address string) string {
	at, err := netip.ParseAddrPort(address)
	switch {
	case err != nil || !at.Addr().IsUnspecified():
		return address
	case at.Addr().Is4():
		return netip.AddrPortFrom(loopback, at.Port()).String()
	default:
		return netip.AddrPortFrom(netip.IPv6Loopback(), at.Port()).String()
	}
}

// relayPage serves the pages of a daemon at a socket until it is interrupted.
func relayPage(cmd *cobra.Command, client controlClient, listen string) error {
	at, err := netip.ParseAddrPort(listen)
	if err != nil || !at.Addr().IsLoopback() {
		return &exitError{exitUsage, fmt.Errorf("--listen %s: write a loopback address, such as 127.0.0.1:8080; from elsewhere, ssh -L leads there", printable(listen))}
	}
	var status statusAnswer
	if err := client.get("/api/v1/status", &status); err != nil { // whether the daemon is there at all
		return &exitError{exitFailed, err}
	}
	gate, err := webui.NewGate(webui.GateConfig{Log: zerolog.Nop()})
	if err != nil {
		return &exitError{exitFailed, err}
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return &exitError{exitFailed, withMend(err)}
	}
	path, _, err := gate.NewLink()
	if err != nil {
		return &exitError{exitFailed, err}
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	fmt.Fprintf(cmd.OutOrStdout(), "http://%s%s\n", l.Addr(), path)
	fmt.Fprintln(cmd.ErrOrStderr(), "The link signs one browser in, within five minutes. The page is served until this is interrupted.")
	served := httpListener{l, newHTTPServer(gate.Guard(webui.NewRelay(client.transport()), nil), nil)}
	if err := served.serve(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return &exitError{exitFailed, err}
	}
	return nil
}
