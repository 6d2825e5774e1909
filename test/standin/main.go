// Standin plays the world around a runner in the container tests: an HTTPS
// origin, or Slack's incoming webhook. It prints what it gets, one JSON object a
// line. Usage: standin origin CERT KEY | standin slack
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

func main() {
	if err := serve(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(args []string) error {
	server := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(answer)}
	switch {
	case len(args) == 3 && args[0] == "origin":
		server.Addr = ":443"
		return server.ListenAndServeTLS(args[1], args[2])
	case len(args) == 1 && args[0] == "slack":
		server.Addr = ":8080"
		return server.ListenAndServe()
	default:
		return fmt.Errorf("usage: standin origin CERT KEY | standin slack")
	}
}

// answer says what it saw, to the client and in the log.
func answer(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return
	}
	_ = json.NewEncoder(os.Stdout).Encode(map[string]any{"time": time.Now().UTC(), "host": r.Host, "path": r.URL.Path, "body": string(body)})
	fmt.Fprintf(w, "standin saw %s\n", r.Host)
}
