// Package webui is the page of a running daemon: what connections are made and
// refused, why, what would allow them, which alerts are open, and by which rules
// the pools go. It only tells. Everything it serves is embedded, and nothing on it
// comes from elsewhere; what a job chose is text, never markup.
//
// [Pages] shows; who may see it is for [Gate], which knows tokens, one-time
// links and sessions.
package webui

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"html/template"
	"io/fs"
	"net/http"
	"time"

	"github.com/rs/zerolog"

	"sallyport/alerting"
	"sallyport/allowlists"
)

// Events is what the page asks of alerting; *alerting.Alerting is one.
type Events interface {
	Decision(id string) ([]alerting.Event, bool)
	Recent(keep func(first, latest []byte) bool, visit func(first, latest *alerting.Event) bool)
	OpenAlerts(most int) (alerts []alerting.Alert, more int)
	RuleUse(rules []alerting.RuleID) alerting.RuleUse
	Watch(wants func(*alerting.Event) bool) (*alerting.Watch, bool)
}

// Config is what the page needs to know.
type Config struct {
	Log    zerolog.Logger
	Events Events
	// Policy gives the policy in force.
	Policy func() *allowlists.Policy
	// Status says how the daemon does.
	Status func() Status
	// ConfigPath is what -c of the daemon names, for the commands that the page
	// shows; "" for the embedded configuration.
	ConfigPath string
}

// A Status is how the daemon does.
type Status struct {
	Version   string
	State     string // starting, ready, stopping
	Policy    uint64 // generation
	Started   time.Time
	Open      int // client connections
	Enforced  Enforcement
	Upstreams []Upstream
}

// An Enforcement is what was measured of it, never what was configured.
type Enforcement struct {
	Placement string
	State     string // in-place, not-in-place, unknown
	By        string // table, probe, none
	Faults    []string
	At        string // RFC 3339; "" if it was not measured
}

// An Upstream is a resolver that is asked.
type Upstream struct {
	Name      string
	Up        bool
	LastError string
}

// Pages serves the pages, to everyone who reaches it. Safe for concurrent use.
type Pages struct {
	config    Config
	templates map[string]*template.Template
	mux       *http.ServeMux
	looking   chan struct{} // as many as may go through the recent events at once
}

// maxLooking is how many answers go through the recent events at once; others wait.
const maxLooking = 2

//go:embed templates/*.html assets/*
var files embed.FS

// pageNames are the templates of pages; each has the layout around it.
var pageNames = []string{"live", "refusals", "alerts", "pools", "pool", "decision", "wrong", "signin", "signedin"}

// parsePages reads the embedded templates.
func parsePages() (map[string]*template.Template, error) {
	parsed := make(map[string]*template.Template)
	for _, name := range pageNames {
		t, err := template.New("layout.html").Funcs(functions).ParseFS(files, "templates/layout.html", "templates/parts.html", "templates/"+name+".html")
		if err != nil {
			return nil, err
		}
		parsed[name] = t
	}
	return parsed, nil
}

// New checks the configuration and reads the embedded templates.
func New(config Config) (*Pages, error) {
	if config.Events == nil || config.Policy == nil || config.Status == nil {
		return nil, errors.New("the page wants Events, Policy and Status")
	}
	templates, err := parsePages()
	if err != nil {
		return nil, err
	}
	p := &Pages{config: config, templates: templates, mux: http.NewServeMux(), looking: make(chan struct{}, maxLooking)}
	p.mux.HandleFunc("GET /{$}", p.live)
	p.mux.HandleFunc(streamPath, p.stream)
	p.mux.HandleFunc("GET /refusals", p.refusals)
	p.mux.HandleFunc("GET /alerts", p.alerts)
	p.mux.HandleFunc("GET /pools", p.pools)
	p.mux.HandleFunc("GET /pools/{name}", p.pool)
	p.mux.HandleFunc("GET /decisions/{id}", p.decision)
	p.mux.Handle(AssetPaths, assets())
	p.mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		p.wrong(w, r, http.StatusNotFound, "There is no such page.")
	})
	return p, nil
}

// ServeHTTP serves a page, with headers that keep it to itself.
func (p *Pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	protect(w.Header())
	p.mux.ServeHTTP(w, r)
}

// Paths are the patterns of the pages, for who puts them beside something else;
// AssetPaths that of what they load, in which there is nothing to hide.
func Paths() []string {
	return []string{"GET /{$}", streamPath, "GET /refusals", "GET /alerts", "GET /pools", "GET /pools/{name}", "GET /decisions/{id}"}
}

// streamPath is the pattern of what streams rows.
const streamPath = "GET /live"

// AssetPaths is the pattern of style and script.
const AssetPaths = "GET /assets/"

// protect sets the headers of every answer: nothing from elsewhere is loaded, no
// script but ours runs, nobody frames it, nothing stays in a cache.
func protect(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
}

// Protected sets those headers on whatever next answers.
func Protected(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		protect(w.Header())
		next.ServeHTTP(w, r)
	})
}

// assets serves style and script, in which there is nothing to hide.
func assets() http.Handler {
	inside, err := fs.Sub(files, "assets")
	if err != nil {
		panic("webui: its assets are not embedded") // a mistake of this build
	}
	return http.StripPrefix("/assets/", http.FileServerFS(inside))
}

// A view is what the layout shows around a page.
type view struct {
	Title    string
	Here     string // name of the page, for the navigation
	Status   *Status
	SignedIn bool // by a session, which can be ended
	Now      time.Time
	Page     any
}

// show answers with a page.
func (p *Pages) show(w http.ResponseWriter, r *http.Request, code int, name, title string, data any) {
	status := p.config.Status()
	render(w, p.templates[name], code, view{
		Title: title, Here: name, Status: &status, SignedIn: hasSession(r.Context()), Now: time.Now().UTC(), Page: data,
	})
}

// render answers with a template, whole or not at all.
func render(w http.ResponseWriter, t *template.Template, code int, v view) {
	var body bytes.Buffer
	if err := t.Execute(&body, v); err != nil {
		http.Error(w, "the page could not be made: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write(body.Bytes())
}

// wrong answers that something is not as it should be.
func (p *Pages) wrong(w http.ResponseWriter, r *http.Request, code int, text string) {
	p.show(w, r, code, "wrong", http.StatusText(code), text)
}

// look waits for its turn to go through the recent events; false if the reader
// has gone before that.
func (p *Pages) look(ctx context.Context) (done func(), ok bool) {
	select {
	case p.looking <- struct{}{}:
		return func() { <-p.looking }, true
	case <-ctx.Done():
		return nil, false
	}
}
