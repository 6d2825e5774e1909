package main

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"

	"sallyport/alerting"
)

// showBaseline answers with the entries of one pool or of all, one JSON object a
// line, in the form of alerts.baseline.file.
func (d *daemon) showBaseline(w http.ResponseWriter, query url.Values) {
	entries, err := d.alerts.Baseline(query.Get("pool"))
	if baselineError(w, err) {
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	lines := json.NewEncoder(w)
	for i := range entries {
		if lines.Encode(&entries[i]) != nil {
			return // the client is gone
		}
	}
}

// removeBaseline takes one destination out.
func (d *daemon) removeBaseline(w http.ResponseWriter, query url.Values) {
	pool, destination := query.Get("pool"), query.Get("destination")
	if pool == "" || destination == "" {
		http.Error(w, "a removal names pool and destination", http.StatusBadRequest)
		return
	}
	known, err := d.alerts.RemoveFromBaseline(pool, destination)
	switch {
	case baselineError(w, err):
	case !known:
		http.Error(w, "no such entry", http.StatusNotFound)
	default:
		d.log.Info().Str("pool", pool).Str("destination", destination).Msg("removed from the baseline")
		w.WriteHeader(http.StatusNoContent)
	}
}

// baselineError answers with an error, and reports whether there was one.
func baselineError(w http.ResponseWriter, err error) bool {
	switch {
	case err == nil:
		return false
	case errors.Is(err, alerting.ErrNoBaseline):
		http.Error(w, err.Error(), http.StatusConflict)
	default:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
	return true
}
