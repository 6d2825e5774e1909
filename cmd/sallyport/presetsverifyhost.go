package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"
)

// A hostVerifier looks at one host at a time. Safe for concurrent use.
type hostVerifier struct {
	resolver *net.Resolver
	timeout  time.Duration // for each host
}

func newHostVerifier(resolver string, timeout time.Duration) *hostVerifier {
	return &hostVerifier{resolver: resolverAt(resolver), timeout: timeout}
}

// lookAt fills in how a host does. covered says whether its preset has a host.
func (v *hostVerifier) lookAt(ctx context.Context, h *presetHost, covered func(string) bool) {
	ctx, cancel := context.WithTimeout(ctx, v.timeout)
	defer cancel()
	h.State = hostDead
	// The final dot keeps search suffixes out.
	if _, err := v.resolver.LookupNetIP(ctx, "ip", h.Host+"."); err != nil {
		h.Detail = plainly(err)
		return
	}
	h.resolved = true
	if canonical, err := v.resolver.LookupCNAME(ctx, h.Host+"."); err == nil {
		if domain := domainOf(canonical); domain != domainOf(h.Host) {
			h.CNAME = domain
		}
	}
	for _, port := range h.Ports {
		if err := v.connect(ctx, h.Host, port); err != nil {
			h.Detail = fmt.Sprintf("port %d: %s", port, plainly(err))
			var forged *tls.CertificateVerificationError
			if errors.As(err, &forged) {
				h.State = hostForged
			}
			return
		}
	}
	h.State = hostWell
	if to := v.redirect(ctx, h); to != "" && to != h.Host && !covered(to) {
		h.State, h.Detail = hostRedirected, fmt.Sprintf("/ leads to %s, which the preset does not have", to)
	}
}

// connect opens a connection, on 443 with a TLS handshake, and closes it.
func (v *hostVerifier) connect(ctx context.Context, host string, port uint16) error {
	address := net.JoinHostPort(host+".", strconv.Itoa(int(port)))
	dialer := &net.Dialer{Resolver: v.resolver}
	if port != 443 {
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	conn, err := (&tls.Dialer{NetDialer: dialer, Config: &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// redirect gives the host that HEAD of "/" ends at after ten redirects at most;
// "" if the host speaks no HTTP that can be asked.
func (v *hostVerifier) redirect(ctx context.Context, h *presetHost) string {
	scheme := ""
	for _, port := range h.Ports {
		if port == 443 {
			scheme = "https"
		} else if port == 80 && scheme == "" {
			scheme = "http"
		}
	}
	if scheme == "" {
		return ""
	}
	dialer := &net.Dialer{Resolver: v.resolver}
	transport := &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true, Proxy: nil}
	// What it is redirected to may not answer, and is no fault of this host's.
	last := ""
	client := &http.Client{Transport: transport, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		last = req.URL.Hostname()
		if len(via) >= 10 {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, scheme+"://"+h.Host+"/", nil)
	if err != nil {
		return ""
	}
	resp, err := client.Do(req)
	if err != nil {
		return strings.ToLower(last)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 1)
	return strings.ToLower(resp.Request.URL.Hostname())
}

// domainOf is the registrable domain of a name, or the name where it has none.
func domainOf(name string) string {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if domain, err := publicsuffix.EffectiveTLDPlusOne(name); err == nil {
		return domain
	}
	return name
}

// plainly is an error without what a reader knows already.
func plainly(err error) string {
	var withURL *url.Error
	if errors.As(err, &withURL) {
		err = withURL.Err
	}
	var lookup *net.DNSError
	switch {
	case errors.As(err, &lookup) && lookup.IsNotFound:
		return "there is no such name"
	case errors.As(err, &lookup) && lookup.IsTimeout, errors.Is(err, context.DeadlineExceeded):
		return "it did not answer in time"
	default:
		return err.Error()
	}
}
