package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// A controlClient asks a running daemon at its control listener: a socket, or
// TCP with its token.
type controlClient struct {
	address   string // as listen.control
	tokenFile string // as admin.token_file; "" sends no token
}

// daemonFlags say which daemon is asked, and of which pool.
type daemonFlags struct{ config, control, pool string }

func (f *daemonFlags) add(cmd *cobra.Command, pool string) {
	flags := cmd.Flags()
	flags.StringVarP(&f.config, "config", "c", "", "configuration of the daemon, whose listen.control is asked")
	flags.StringVar(&f.control, "control", "", "the daemon's control listener, instead of -c: unix:/path")
	flags.StringVar(&f.pool, "pool", "", pool)
}

// client is the way to the daemon.
func (f *daemonFlags) client(cmd *cobra.Command) (controlClient, error) {
	if f.control != "" {
		source := eventSource{control: f.control}
		if err := source.check(); err != nil {
			return controlClient{}, &exitError{exitUsage, err}
		}
		return controlClient{address: f.control}, nil
	}
	file, _, err := loadConfig(f.config, cmd.ErrOrStderr())
	if err != nil {
		return controlClient{}, err
	}
	if file.Settings.Listen.Control == "" {
		why := "no -c says which daemon to ask; add -c FILE (its configuration, with listen.control) or --control unix:/path"
		if f.config != "" {
			why = "the configuration names no listen.control to ask; add it, or name the daemon by --control unix:/path"
		}
		return controlClient{}, &exitError{exitUsage, errors.New(why)}
	}
	return controlClient{address: file.Settings.Listen.Control, tokenFile: file.Settings.Admin.TokenFile}, nil
}

// errNotFound is the answer that the daemon has no such thing.
var errNotFound = errors.New("the daemon has no such thing")

// get asks for a path and decodes the JSON answer. The error is that of do.
func (c controlClient) get(path string, into any) error { return c.ask(http.MethodGet, path, into) }

// ask is get by another method.
func (c controlClient) ask(method, path string, into any) error {
	return c.do(method, path, func(body io.Reader) error {
		return json.NewDecoder(io.LimitReader(body, maxEventLine)).Decode(into)
	})
}

// transport leads every request to the daemon, each over its own connection.
func (c controlClient) transport() *http.Transport {
	network, address := "tcp", c.address
	if socket, ok := strings.CutPrefix(c.address, "unix:"); ok {
		network, address = "unix", socket
	}
	return &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
	}
}

// controlTimeout bounds one question to the daemon, its answer included.
const controlTimeout = 30 * time.Second

// do asks for a path and has read take the answer. The error is errNotFound, or
// says in its own words who was asked and what is wrong.
func (c controlClient) do(method, path string, read func(io.Reader) error) error {
	return c.send(method, path, nil, read)
}

// send is do with a body, of JSON; nil for none.
func (c controlClient) send(method, path string, body []byte, read func(io.Reader) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), controlTimeout)
	defer cancel()
	client := &http.Client{Transport: c.transport()}
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.tokenFile != "" {
		token, err := os.ReadFile(c.tokenFile)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	resp, err := client.Do(req)
	if err != nil {
		var withURL *url.Error
		if errors.As(err, &withURL) {
			err = withURL.Err
		}
		if errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("asking the daemon at %s: %w; its socket is for the daemon's user and for root", c.address, err)
		}
		return fmt.Errorf("asking the daemon at %s: %w; is it running?", c.address, err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK, http.StatusCreated, http.StatusNoContent:
	case http.StatusNotFound:
		return errNotFound
	case http.StatusUnauthorized:
		return fmt.Errorf("the daemon at %s wants the token of its admin.token_file; name its configuration by -c instead of --control", c.address)
	default:
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return fmt.Errorf("asking the daemon at %s: %s: %s", c.address, resp.Status, printable(strings.TrimSpace(string(text))))
	}
	if err := read(resp.Body); err != nil {
		return fmt.Errorf("reading the daemon's answer: %w", err)
	}
	return nil
}
