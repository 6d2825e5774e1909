//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// An openPage is the page of a subject as a browser has it open: it reads the
// rows that come.
type openPage struct {
	cancel context.CancelFunc
	done   chan struct{}
	rows   int
	left   int64 // rows that the page says it was not shown
	err    error
}

// openPageOf opens the page of a subject, and returns once its rows are streamed;
// nil if it has none.
func openPageOf(s *subject) (*openPage, error) {
	if s.page == "" {
		return nil, nil
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", s.page)
	}}}
	ctx, cancel := context.WithCancel(context.Background())
	p := &openPage{cancel: cancel, done: make(chan struct{})}
	body, err := get(ctx, client, "/")
	if err == nil {
		_, err = io.Copy(io.Discard, body)
		err = errors.Join(err, body.Close())
	}
	if err == nil {
		body, err = get(ctx, client, "/live")
	}
	if err != nil {
		cancel()
		return nil, err
	}
	go func() {
		defer close(p.done)
		defer body.Close()
		p.read(body)
	}()
	return p, nil
}

// get asks for a path of the page.
func get(ctx context.Context, client *http.Client, path string) (io.ReadCloser, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+path, nil)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		return nil, errors.Join(fmt.Errorf("the page answers %s", answer.Status), answer.Body.Close())
	}
	return answer.Body, nil
}

// read counts what comes until the page is closed.
func (p *openPage) read(body io.Reader) {
	missed := false
	lines := bufio.NewScanner(body)
	for lines.Scan() {
		line := lines.Bytes()
		switch {
		case bytes.Equal(line, []byte("event: missed")):
			missed = true
		case bytes.HasPrefix(line, []byte("data: ")) && missed:
			n, err := strconv.ParseInt(string(line[len("data: "):]), 10, 64)
			p.left, p.err, missed = p.left+n, errors.Join(p.err, err), false
		case bytes.HasPrefix(line, []byte("data: ")):
			p.rows++
		}
	}
}

// closeInto closes the page and adds what it was shown to a sample; one that
// showed nothing was not live.
func (p *openPage) closeInto(s *Sample) {
	p.cancel()
	<-p.done
	s.Values[shownRows] = float64(p.rows) / s.Seconds
	s.Values[leftRows] = float64(p.left) / s.Seconds
	if p.err == nil && p.rows == 0 {
		p.err = errors.New("the page showed nothing")
	}
	if p.err != nil && s.Errors == 0 {
		s.Errors, s.FirstError = 1, p.err.Error()
	}
}

// whileOpen makes a figure of one that is measured while the subject's page is
// open, if it has one.
func whileOpen(run func(*world, *subject) Sample) func(*world, *subject) Sample {
	return func(w *world, s *subject) Sample {
		p, err := openPageOf(s)
		if err != nil {
			return failed(err)
		}
		sample := run(w, s)
		if p != nil {
			time.Sleep(200 * time.Millisecond) // the last rows are under way
			p.closeInto(&sample)
		}
		return sample
	}
}
