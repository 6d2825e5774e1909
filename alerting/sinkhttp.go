package alerting

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// The bounds of one post.
const (
	postTimeout   = 45 * time.Second // more than a slow receiver takes, as a message given up comes twice
	dialTimeout   = 5 * time.Second  // for the connection, and again for TLS
	postReplyRead = 4 << 10          // bytes of a reply that are read
	postReplySaid = 40               // bytes of a reply that are repeated
)

// A doer sends a request: an http.Client, or a stand-in.
type doer interface {
	Do(*http.Request) (*http.Response, error)
}

// newHTTPClient makes a client that uses no proxy, follows no redirect and
// waits for nothing longer than postTimeout. Each sink has its own.
func newHTTPClient() *http.Client {
	dialer := &net.Dialer{Timeout: dialTimeout, Resolver: new(net.Resolver)}
	return &http.Client{
		Timeout: postTimeout,
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSHandshakeTimeout: dialTimeout, ResponseHeaderTimeout: postTimeout,
			MaxResponseHeaderBytes: 32 << 10, MaxIdleConns: 1, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// An endpoint is a URL to post to. The URL is a secret: it is in no error and
// no method gives it.
type endpoint struct {
	url    string
	client doer
}

// newEndpoint checks a URL. The error does not hold it. A nil client makes one.
func newEndpoint(address string, client doer) (endpoint, error) {
	parsed, err := url.Parse(address)
	if err != nil || parsed.Host == "" || parsed.Scheme != "https" && parsed.Scheme != "http" {
		return endpoint{}, errors.New("the URL is not one of http or https; it is not shown as it is a secret")
	}
	if client == nil {
		client = newHTTPClient()
	}
	return endpoint{address, client}, nil
}

// post sends a JSON body and says what came of it.
func (e endpoint) post(ctx context.Context, body []byte, headers map[string]string) delivery {
	ctx, cancel := context.WithTimeout(ctx, postTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, bytes.NewReader(body))
	if err != nil {
		return delivery{stop: true, cause: "the URL is not usable"}
	}
	request.Header.Set("Content-Type", "application/json; charset=utf-8")
	request.Header.Set("User-Agent", "sallyport")
	for key, value := range headers {
		request.Header.Set(key, value)
	}
	var wrote atomic.Bool
	request = request.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { wrote.Store(true) }}))
	response, err := e.client.Do(request)
	if err != nil {
		return delivery{cause: postError(err), unclear: wrote.Load()}
	}
	defer response.Body.Close()
	reply, _ := io.ReadAll(io.LimitReader(response.Body, postReplyRead))
	return e.judge(response, string(reply))
}

// probe asks whether the receiver answers, without telling it anything: any
// answer that is not trouble of its own will do.
func (e endpoint) probe(ctx context.Context) delivery {
	ctx, cancel := context.WithTimeout(ctx, postTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodHead, e.url, nil)
	if err != nil {
		return delivery{arrived: true} // the post tells
	}
	request.Header.Set("User-Agent", "sallyport")
	response, err := e.client.Do(request)
	if err != nil {
		return delivery{cause: postError(err)}
	}
	response.Body.Close()
	if status := response.StatusCode; status == http.StatusTooManyRequests || status == http.StatusRequestTimeout || status >= 500 && status != http.StatusNotImplemented {
		return delivery{after: retryAfterOf(response.Header.Get("Retry-After"), time.Now()), cause: fmt.Sprintf("HTTP status %d", status)}
	}
	return delivery{arrived: true}
}

// judge says what a reply means. A success counts as soon as its head is there.
func (e endpoint) judge(response *http.Response, reply string) delivery {
	status := response.StatusCode
	cause := fmt.Sprintf("HTTP status %d", status)
	if word := replyWord(reply); word != "" && !strings.Contains(e.url, word) {
		cause += ", " + word
	}
	switch {
	case status >= 200 && status < 300:
		return delivery{arrived: true}
	case status == http.StatusTooManyRequests:
		return delivery{definite: true, after: retryAfterOf(response.Header.Get("Retry-After"), time.Now()), cause: cause}
	case status == http.StatusRequestTimeout, status == http.StatusTooEarly:
		return delivery{cause: cause}
	case status == http.StatusBadGateway, status == http.StatusGatewayTimeout: // whoever is behind it may have taken it
		return delivery{unclear: true, after: retryAfterOf(response.Header.Get("Retry-After"), time.Now()), cause: cause}
	case status >= 500:
		return delivery{after: retryAfterOf(response.Header.Get("Retry-After"), time.Now()), cause: cause}
	case status >= 400:
		return delivery{stop: true, cause: cause}
	default: // a redirect, which is not followed
		return delivery{definite: true, cause: cause + ", a redirect that is not followed"}
	}
}

// replyWord is a reply if it is one word such as Slack's "invalid_payload",
// else "": a reply may repeat what was sent.
func replyWord(reply string) string {
	reply = strings.TrimSpace(reply)
	if reply == "" || len(reply) > postReplySaid {
		return ""
	}
	for i := 0; i < len(reply); i++ {
		if c := reply[i]; c != '_' && (c < 'a' || c > 'z') {
			return ""
		}
	}
	return reply
}

// retryAfterOf reads a Retry-After, in seconds or as a date; 0 if there is none.
func retryAfterOf(value string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(strings.TrimSpace(value)); err == nil && seconds >= 0 {
		return time.Duration(min(seconds, int(retryAfter/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, min(at.Sub(now), retryAfter))
	}
	return 0
}

// postError says in words of our own what went wrong: errors of net/http and
// net hold the URL, or parts of it.
func postError(err error) string {
	var (
		timeout     interface{ Timeout() bool }
		name        *net.DNSError
		certificate *tls.CertificateVerificationError
		authority   x509.UnknownAuthorityError
		hostname    x509.HostnameError
		record      tls.RecordHeaderError
	)
	switch {
	case errors.Is(err, context.Canceled):
		return "stopped while sending"
	case errors.As(err, &name):
		return "the host's name was not resolved"
	case errors.As(err, &certificate), errors.As(err, &authority), errors.As(err, &hostname):
		return "the certificate was not accepted"
	case errors.As(err, &record):
		return "no TLS was spoken"
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return "timed out"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "host unreachable"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection closed"
	default:
		return "sending did not work"
	}
}

// close ends idle connections.
func (e endpoint) close() {
	if client, ok := e.client.(interface{ CloseIdleConnections() }); ok {
		client.CloseIdleConnections()
	}
}
