package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
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

// lookAt fills in how a host or a download does. covered says whether the
// preset allows a host and port.
func (v *hostVerifier) lookAt(ctx context.Context, h *presetHost, covered func(string, uint16) bool) {
	ctx, cancel := context.WithTimeout(ctx, v.timeout)
	defer cancel()
	// The final dot keeps search suffixes out.
	if _, err := v.resolver.LookupNetIP(ctx, "ip", h.Host+"."); err != nil {
		h.State, h.Detail = hostDead, plainly(err)
		return
	}
	h.resolved = true
	if h.Download != "" {
		h.State, h.Detail = v.download(ctx, h.Download, covered)
		return
	}
	if canonical, err := v.resolver.LookupCNAME(ctx, h.Host+"."); err == nil {
		if domain := domainOf(canonical); domain != domainOf(h.Host) {
			h.CNAME = domain
		}
	}
	for _, port := range h.Ports {
		if err := v.connect(ctx, h.Host, port); err != nil {
			h.State, h.Detail = unreachedState(err), fmt.Sprintf("port %d: %s", port, plainly(err))
			return
		}
	}
	h.State = hostWell
	if astray := v.front(ctx, h, covered); astray != "" {
		h.State, h.Detail = hostRedirected, "/ leads to "+astray
	}
}

// unreachedState is the state of a host that could not be connected to.
func unreachedState(err error) string {
	var forged *tls.CertificateVerificationError
	if errors.As(err, &forged) {
		return hostForged
	}
	return hostDead
}

// dial opens a connection to a name, and to none that a search suffix makes of it.
func (v *hostVerifier) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	return (&net.Dialer{Resolver: v.resolver}).DialContext(ctx, network, net.JoinHostPort(strings.TrimSuffix(host, ".")+".", port))
}

// connect opens a connection, on 443 with a TLS handshake, and closes it.
func (v *hostVerifier) connect(ctx context.Context, host string, port uint16) error {
	conn, err := v.dial(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
	if err != nil {
		return err
	}
	defer conn.Close()
	if port != 443 {
		return nil
	}
	return tls.Client(conn, &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}).HandshakeContext(ctx)
}

// front says where "/" of a host leads astray; "" if nowhere, or if the host
// speaks no HTTP that can be asked. Ports do not matter to it: a front page is
// for people.
func (v *hostVerifier) front(ctx context.Context, h *presetHost, covered func(string, uint16) bool) string {
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
	// What it is redirected to may not answer, and is no fault of this host's.
	end, _ := v.follow(ctx, http.MethodHead, scheme+"://"+h.Host+"/", func(host string, _ uint16) bool {
		return host == h.Host || covered(host, 0)
	})
	return end.astray
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
