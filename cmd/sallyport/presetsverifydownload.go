package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"sallyport/allowlists"
)

// maxHops is how many redirects are followed.
const maxHops = 10

// An ending is what following a URL came to.
type ending struct {
	at     *url.URL // of the last request
	status int      // of its answer; 0 if there was none
	empty  bool     // whether the answer has no body
	astray string   // where it would have gone on to, and why it did not; "" if it did not have to
}

// download says how a download does, which is well if its first byte comes, by
// hosts alone that the preset covers.
func (v *hostVerifier) download(ctx context.Context, from string, covered func(string, uint16) bool) (state, detail string) {
	end, err := v.follow(ctx, http.MethodGet, from, covered)
	at := ""
	if end.at != nil && end.at.String() != from {
		at = end.at.Host + ": "
	}
	switch {
	case err != nil:
		return unreachedState(err), at + plainly(err)
	case end.astray != "":
		return hostRedirected, "it leads to " + end.astray
	case end.status != http.StatusOK && end.status != http.StatusPartialContent:
		return hostDead, fmt.Sprintf("%sanswers %d %s", at, end.status, http.StatusText(end.status))
	case end.empty:
		return hostDead, at + "sends nothing"
	default:
		return hostWell, ""
	}
}

// follow asks for a URL, and for those that it redirects to while covered allows
// their hosts and ports. Of each answer it reads one byte of the body at most.
func (v *hostVerifier) follow(ctx context.Context, method, from string, covered func(string, uint16) bool) (ending, error) {
	transport := &http.Transport{
		Proxy: nil, DialContext: v.dial, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
		DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10,
	}
	var end ending
	next, err := url.Parse(from)
	if err != nil {
		return end, err
	}
	for hop := 0; ; hop++ {
		end = ending{at: next}
		resp, err := askOnce(ctx, transport, method, next)
		if err != nil {
			return end, err
		}
		end.status = resp.StatusCode
		if !redirects(resp.StatusCode) {
			if method != http.MethodHead {
				end.empty, err = nothingComes(ctx, resp.Body)
			}
			return end, errors.Join(err, resp.Body.Close())
		}
		_ = resp.Body.Close() // of a redirect, which is not read
		if hop == maxHops {
			return end, fmt.Errorf("more than %d redirects", maxHops)
		}
		if next, err = resp.Location(); err != nil {
			return end, fmt.Errorf("a redirect to nowhere (%d)", resp.StatusCode)
		}
		if end.astray = straysTo(end.at, next, covered); end.astray != "" {
			return end, nil
		}
	}
}

// nothingComes reads one byte, and reports whether there is none.
func nothingComes(ctx context.Context, body io.Reader) (bool, error) {
	_, err := io.ReadFull(body, make([]byte, 1))
	if ctx.Err() != nil {
		return true, ctx.Err() // a connection that was closed for it may look like an end
	}
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	return err != nil, err
}

// askOnce sends one request, for one byte.
func askOnce(ctx context.Context, transport *http.Transport, method string, at *url.URL) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, at.String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	if method == http.MethodGet {
		req.Header.Set("Range", "bytes=0-0")
	}
	return transport.RoundTrip(req)
}

func redirects(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	default:
		return false
	}
}

// straysTo says why a redirect is not followed; "" if it may be. It names hosts
// only, as the query of such a URL may be a signature that lets anyone in.
func straysTo(from, to *url.URL, covered func(string, uint16) bool) string {
	host, port := strings.ToLower(strings.TrimSuffix(to.Hostname(), ".")), uint16(443)
	if to.Scheme == "http" {
		port = 80
	}
	if text := to.Port(); text != "" {
		number, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return "port " + text + " of " + host
		}
		port = uint16(number)
	}
	switch _, err := netip.ParseAddr(host); {
	case to.Scheme != "https" && to.Scheme != "http":
		return to.Scheme + ", which is not HTTP"
	case err == nil:
		return "the address " + host + " instead of a name"
	case to.Scheme == "http" && from.Scheme == "https":
		return "plain HTTP at " + host + ", which anyone on the way can change"
	case covered(host, port):
		return ""
	}
	name, err := allowlists.ParseHost(host)
	if err != nil {
		return host + ", which is no host name"
	}
	line := name.String()
	if port != 443 {
		line = fmt.Sprintf("%s:%d", line, port)
	}
	return fmt.Sprintf("%s, which the preset does not have; it takes the line - host: %q", line, line)
}
