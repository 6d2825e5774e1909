package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"os/user"
	"strconv"
	"strings"
	"time"

	"sallyport/allowlists"
)

// A grantWish is the body of POST /api/v1/grants; docs/control.md has every field.
type grantWish struct {
	Pool   string `json:"pool"`
	Host   string `json:"host"`
	For    string `json:"for"`
	Reason string `json:"reason"`
	By     string `json:"by,omitempty"`
}

// A grantAnswer is a grant as the API shows it.
type grantAnswer struct {
	ID      string    `json:"id"`
	Pool    string    `json:"pool"`
	Host    string    `json:"host"`
	Reason  string    `json:"reason"`
	By      string    `json:"by"`
	Granted time.Time `json:"granted"`
	Ends    time.Time `json:"ends"`
	Kept    bool      `json:"kept"` // over a restart
}

// handleGrants adds what shows, makes and ends grants.
func (d *daemon) handleGrants(mux *http.ServeMux) {
	mux.HandleFunc("GET /api/v1/grants", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, d.grantAnswers()) })
	mux.HandleFunc("POST /api/v1/grants", noBrowser(d.postGrant))
	mux.HandleFunc("DELETE /api/v1/grants/{id}", noBrowser(d.deleteGrant))
}

// noBrowser keeps what changes something from a page that an operator opened: a
// browser names the page's origin, and what it may send without being asked is
// no JSON.
func noBrowser(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
		switch {
		case r.Header.Get("Origin") != "" || r.Header.Get("Cookie") != "" || r.Header.Get("Sec-Fetch-Site") != "":
			http.Error(w, "this is not done from a browser; use sallyport allow, or the API with the token", http.StatusForbidden)
		case r.Method == http.MethodPost && kind != "application/json":
			http.Error(w, "the body is JSON: Content-Type: application/json", http.StatusUnsupportedMediaType)
		default:
			next(w, r)
		}
	}
}

// maxWish bounds the body of a wish, in bytes.
const maxWish = 16 << 10

func (d *daemon) postGrant(w http.ResponseWriter, r *http.Request) {
	var wish grantWish
	body := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxWish))
	body.DisallowUnknownFields()
	err := body.Decode(&wish)
	if _, more := body.Token(); err == nil && more != io.EOF {
		err = errors.New("something follows it")
	}
	if err != nil {
		http.Error(w, fmt.Sprintf(`the body is not {"pool", "host", "for", "reason"}: %v`, err), http.StatusBadRequest)
		return
	}
	lasts, err := time.ParseDuration(wish.For)
	if err != nil {
		http.Error(w, `"for" is no time such as 1h or 30m`, http.StatusBadRequest)
		return
	}
	granted, err := d.grant(wish.Pool, wish.Host, wish.Reason, whoAsks(r, wish.By), lasts)
	switch {
	case errors.Is(err, errGrantsFull):
		http.Error(w, err.Error(), http.StatusConflict)
	case errors.Is(err, errNotKept):
		d.log.Error().Err(err).Msg("nothing was granted")
		http.Error(w, "nothing was granted, as alerts.state_dir does not take it; the daemon's log says why", http.StatusInternalServerError)
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
	default:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(d.grantAnswer(granted))
	}
}

func (d *daemon) deleteGrant(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	ended, err := d.endGrants(func(g allowlists.Grant) string {
		if g.ID == id {
			return grantRemoved
		}
		return ""
	}, whoAsks(r, ""))
	switch {
	case err != nil:
		d.log.Error().Err(err).Str("id", id).Msg("the grant goes on")
		http.Error(w, "the grant goes on, as alerts.state_dir does not take its end; the daemon's log says why", http.StatusInternalServerError)
	case ended == 0:
		http.Error(w, "no grant has this id", http.StatusNotFound)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

func (d *daemon) grantAnswers() []grantAnswer {
	answers := []grantAnswer{}
	for _, g := range d.grants.list() {
		answers = append(answers, d.grantAnswer(g))
	}
	return answers
}

func (d *daemon) grantAnswer(g allowlists.Grant) grantAnswer {
	return grantAnswer{
		ID: g.ID, Pool: g.Pool, Host: g.Host, Reason: g.Reason, By: g.By,
		Granted: g.Granted.UTC().Truncate(time.Second), Ends: g.Ends.UTC().Truncate(time.Second), Kept: d.settings.Alerts.StateDir != "",
	}
}

// connKey is the key of a request's connection in its context.
type connKey struct{}

// whoAsks names who made a request: the user at the other end of the socket, as
// the kernel says, or whoever holds the token; before that, what they call
// themselves.
func whoAsks(r *http.Request, claimed string) string {
	who := "token"
	if conn, ok := r.Context().Value(connKey{}).(net.Conn); ok {
		if uid, ok := peerUser(conn); ok {
			who = "uid " + strconv.FormatUint(uint64(uid), 10)
			if u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil {
				who = fmt.Sprintf("%s, %s", u.Username, who)
			}
		}
	}
	if claimed = strings.TrimSpace(claimed); claimed != "" {
		who = fmt.Sprintf("%s (%s)", claimed, who)
	}
	return who
}
