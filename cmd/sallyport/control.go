package main

import (
	"net/http"
	"net/http/pprof"
	"time"

	"sallyport/alerting/webui"
)

// controlHandler serves the API and the page. They only tell, but for removals
// from the baseline and for grants, which no browser can ask for. Over TCP every request to the API shows the token, and every
// page wants it or a session; over the socket its mode has said who may ask.
func controlHandler(d *daemon, token string, withPprof bool) (http.Handler, error) {
	pages, err := webui.New(webui.Config{
		Log: d.log, Events: d.alerts, Policy: d.policy.Load, Status: d.pageStatus, ConfigPath: d.options.config,
	})
	if err != nil {
		return nil, err
	}
	api := d.apiMux()
	if withPprof {
		api.HandleFunc("GET /debug/pprof/", pprof.Index)
		api.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		api.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
		api.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	}
	if token == "" {
		api.Handle("GET /", pages)
		return webui.Protected(http.NewCrossOriginProtection().Handler(api)), nil
	}
	gate, err := webui.NewGate(webui.GateConfig{Log: d.log, Token: token})
	if err != nil {
		return nil, err
	}
	api.HandleFunc("POST /api/v1/page-links", func(w http.ResponseWriter, _ *http.Request) { newPageLink(w, gate) })
	return gate.Guard(pages, api), nil
}

// apiMux serves the API without asking who is there.
func (d *daemon) apiMux() *http.ServeMux {
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
	mux.HandleFunc("DELETE /api/v1/baseline", noBrowser(func(w http.ResponseWriter, r *http.Request) { d.removeBaseline(w, r.URL.Query()) }))
	d.handleGrants(mux)
	return mux
}

// A pageLink is the answer to POST /api/v1/page-links.
type pageLink struct {
	Path    string    `json:"path"` // signs one browser in, once
	Expires time.Time `json:"expires"`
}

// newPageLink answers with a one-time link.
func newPageLink(w http.ResponseWriter, gate *webui.Gate) {
	path, expires, err := gate.NewLink()
	if err != nil {
		w.Header().Set("Retry-After", "60")
		http.Error(w, err.Error(), http.StatusTooManyRequests)
		return
	}
	writeJSON(w, pageLink{Path: path, Expires: expires.UTC().Truncate(time.Second)})
}

// pageStatus is what each page says of the daemon.
func (d *daemon) pageStatus() webui.Status {
	m := d.enforcementStatus()
	status := webui.Status{
		Version: version, State: stateNames[d.state.Load()], Policy: d.policy.Load().Generation(), Started: d.began, Open: d.proxy.Status().Sessions,
		Enforced: webui.Enforcement{Placement: m.Placement, State: m.State, By: m.By, Faults: m.Faults, At: m.At},
	}
	for _, up := range d.dns.Upstreams() {
		status.Upstreams = append(status.Upstreams, webui.Upstream{Name: up.Name, Up: up.Up, LastError: up.LastError})
	}
	return status
}
