package main

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
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
// its own name to us (DNS rebinding) gets nothing.
func checkHost(next http.Handler, hosts []string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			name = strings.Trim(r.Host, "[]")
		}
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		if !hostIsOurs(strings.ToLower(name), local, hosts) {
			http.Error(w, "this Host is not served here; add it to admin.hosts", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func hostIsOurs(name string, local net.Addr, hosts []string) bool {
	if local != nil && local.Network() == "unix" {
		return true
	}
	if name == "localhost" || slices.Contains(hosts, name) {
		return true
	}
	addr, err := netip.ParseAddr(name)
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

// controlHandler serves the API. It only tells, but for removals from the
// baseline. Over TCP every request shows the token.
func controlHandler(d *daemon, token string, withPprof bool) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/status", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, d.status()) })
	mux.HandleFunc("GET /api/v1/decisions/{id}", func(w http.ResponseWriter, r *http.Request) {
		events, ok := d.alerts.Decision(r.PathValue("id"))
		if !ok {
			http.Error(w, "no such id among the last 10,000 decisions", http.StatusNotFound)
			return
		}
		writeJSON(w, events)
	})
	mux.HandleFunc("GET /api/v1/baseline", func(w http.ResponseWriter, r *http.Request) { d.showBaseline(w, r.URL.Query()) })
	mux.HandleFunc("DELETE /api/v1/baseline", func(w http.ResponseWriter, r *http.Request) { d.removeBaseline(w, r.URL.Query()) })
	if withPprof {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	}
	if token == "" {
		return mux
	}
	return requireToken(mux, token)
}

// requireToken wants "Authorization: Bearer TOKEN", compared in constant time.
func requireToken(next http.Handler, token string) http.Handler {
	want := []byte("Bearer " + token)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), want) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "the control API wants the token of admin.token_file", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}
