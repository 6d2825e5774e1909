package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// allowOptions are the flags of allow.
type allowOptions struct {
	daemon     daemonFlags
	lasts      time.Duration
	reason, by string
	list       bool
	end        string
	format     string
}

// newAllow lets a pool reach one host for a while: break-glass.
func newAllow() *cobra.Command {
	var o allowOptions
	cmd := &cobra.Command{
		Use:   "allow [HOST[:PORT]]",
		Short: "Let a pool reach one more host for a while, or end that (break-glass)",
		Long: `Let a pool reach one more host, on port 443 or the one given, for up to 24 hours.
The running daemon is asked, through --control or the control listener of -c. It
tells those who get its alerts, logs who asked and why, and ends the grant by
itself: connections that it alone allowed are closed within a second. With
alerts.state_dir it survives a restart. Deny lists, private addresses and the
first bytes of a connection are judged as ever.

Who asks is the user that the kernel names at the socket, or "token"; --by adds a
name. --list shows what is granted, --end ends a grant before its time. Exit code
1 if the daemon does not grant it.`,
		Example: `  sallyport allow -c sallyport.yaml --pool build mirror.example --for 1h --reason "outage of the usual mirror, INC-4711"
  sallyport allow -c sallyport.yaml --list
  sallyport allow -c sallyport.yaml --end k3v9x2m4p7qa`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := o.check(cmd, args)
			if err != nil {
				return err
			}
			switch {
			case o.list:
				return o.showGrants(cmd, client)
			case o.end != "":
				return endGrant(cmd, client, o.end)
			default:
				return o.askGrant(cmd, client, args[0])
			}
		},
	}
	o.daemon.add(cmd, "the pool")
	flags := cmd.Flags()
	flags.DurationVar(&o.lasts, "for", time.Hour, "how long, up to 24h")
	flags.StringVar(&o.reason, "reason", "", "why, for those who read the alert")
	flags.StringVar(&o.by, "by", "", "who asks, besides what the daemon knows")
	flags.BoolVar(&o.list, "list", false, "show what is granted")
	flags.StringVar(&o.end, "end", "", "end the grant of this id")
	flags.StringVar(&o.format, "format", "text", "text or json")
	return cmd
}

// check refuses what makes no sense together, and gives the way to the daemon.
func (o *allowOptions) check(cmd *cobra.Command, args []string) (controlClient, error) {
	usage := func(text string) (controlClient, error) {
		return controlClient{}, &exitError{exitUsage, errors.New(text)}
	}
	switch {
	case o.format != "text" && o.format != "json":
		return controlClient{}, unknownFormat(o.format)
	case o.list && o.end != "", (o.list || o.end != "") && len(args) > 0:
		return usage("say one of HOST[:PORT], --list and --end ID")
	case o.list || o.end != "":
	case len(args) == 0:
		return usage("name the HOST or HOST:PORT, or say --list; see sallyport allow --help")
	case o.daemon.pool == "":
		return usage("name the pool by --pool")
	case o.reason == "":
		return usage(`say why by --reason "...": those who get the alert will ask`)
	}
	return o.daemon.client(cmd)
}

// askGrant asks for a grant and prints it.
func (o *allowOptions) askGrant(cmd *cobra.Command, client controlClient, host string) error {
	wish, err := json.Marshal(grantWish{Pool: o.daemon.pool, Host: host, For: o.lasts.String(), Reason: o.reason, By: o.by})
	if err != nil {
		return err
	}
	var granted grantAnswer
	err = client.send(http.MethodPost, "/api/v1/grants", wish, func(body io.Reader) error { return json.NewDecoder(body).Decode(&granted) })
	if err != nil {
		return &exitError{exitFailed, err}
	}
	if !granted.Kept {
		fmt.Fprintln(cmd.ErrOrStderr(), "sallyport: the daemon has no alerts.state_dir: a restart ends this grant")
	}
	if o.format == "json" {
		return printJSON(cmd.OutOrStdout(), granted)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "pool %s may reach %s until %s (grant %s)\n",
		granted.Pool, granted.Host, granted.Ends.Format(time.DateTime+" MST"), granted.ID)
	return err
}

// showGrants prints what is granted.
func (o *allowOptions) showGrants(cmd *cobra.Command, client controlClient) error {
	grants := []grantAnswer{}
	if err := client.get("/api/v1/grants", &grants); err != nil {
		return &exitError{exitFailed, err}
	}
	if o.format == "json" {
		return printJSON(cmd.OutOrStdout(), grants)
	}
	if len(grants) == 0 {
		fmt.Fprintln(cmd.ErrOrStderr(), "nothing is granted")
	}
	table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tPOOL\tHOST\tENDS\tBY\tREASON")
	for _, g := range grants {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", g.ID, g.Pool, g.Host, g.Ends.Format(time.DateTime+" MST"), printable(g.By), printable(g.Reason))
	}
	return table.Flush()
}

// endGrant ends one grant.
func endGrant(cmd *cobra.Command, client controlClient, id string) error {
	err := client.do(http.MethodDelete, "/api/v1/grants/"+url.PathEscape(id), func(io.Reader) error { return nil })
	switch {
	case errors.Is(err, errNotFound):
		return &exitError{exitFailed, fmt.Errorf("no grant has the id %s; --list shows those there are", printable(id))}
	case err != nil:
		return &exitError{exitFailed, err}
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "grant %s is over\n", printable(id))
	return err
}
