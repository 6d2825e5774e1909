package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// An httpListener is a bound socket of admin or control, with what it serves.
type httpListener struct {
	net.Listener
	server *http.Server
}

// newHTTPServer guards a handler with the Host check and with limits that keep
// a slow or hostile peer from holding anything.
func newHTTPServer(handler http.Handler, hosts []string) *http.Server {
	return &http.Server{
		Handler:           checkHost(handler, hosts),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
	}
}

// serve runs until ctx ends. It returns nil then, or why it could not go on.
func (l *httpListener) serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = l.server.Close() })
	defer stop()
	if err := l.server.Serve(l.Listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// listenUnix binds a socket that only the daemon's user can open, in place of
// one that a crash left behind.
func listenUnix(path string) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
			conn.Close()
			return nil, fmt.Errorf("listening on unix:%s: another daemon serves there", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	old := umask(0o177)
	defer umask(old)
	return net.Listen("unix", path)
}

// checkHost refuses requests whose Host is neither an own address, nor
// localhost, nor one of hosts: a page in an operator's browser that resolves
// its own name to us (DNS rebinding) gets nothing. A browser comes to a socket
// through a tunnel whose address we do not know; there any loopback address will do.
func checkHost(next http.Handler, hosts []string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			name = strings.Trim(r.Host, "[]")
		}
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		if !hostIsOurs(strings.ToLower(name), local, hosts, fromBrowser(r)) {
			http.Error(w, "this Host is not served here; add it to admin.hosts", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// fromBrowser reports whether a browser sent a request: each says of itself
// whence it comes.
func fromBrowser(r *http.Request) bool {
	return r.Header.Get("Sec-Fetch-Site") != "" || r.Header.Get("Origin") != "" || strings.HasPrefix(r.Header.Get("User-Agent"), "Mozilla/")
}

func hostIsOurs(name string, local net.Addr, hosts []string, browser bool) bool {
	unix := local != nil && local.Network() == "unix"
	if unix && !browser {
		return true
	}
	if name == "localhost" || slices.Contains(hosts, name) {
		return true
	}
	addr, err := netip.ParseAddr(name)
	if unix {
		return err == nil && addr.IsLoopback()
	}
	if err != nil || local == nil {
		return false
	}
	own, err := netip.ParseAddrPort(local.String())
	return err == nil && own.Addr().Unmap() == addr.Unmap()
}

// adminHandler serves what a scraper and an orchestrator need, and no secret.
func adminHandler(d *daemon, registry *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if d.state.Load() != stateReady {
			writeText(w, http.StatusServiceUnavailable, "not ready\n")
			return
		}
		writeText(w, http.StatusOK, "ready\n")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second}))
	return mux
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text))
}
