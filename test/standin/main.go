// Standin plays the world around a runner in the container tests, and a job's
// program for UDP. What it gets it prints, one JSON object a line.
//
//	standin world CERT KEY       an HTTPS origin, a resolver that answers every
//	                             name with its own address, and a UDP echo
//	standin slack TEXT           Slack's incoming webhook; a payload that Slack
//	                             would not take, or that has TEXT where Slack
//	                             reads markup, is answered with 400
//	standin udp HOST:PORT        sends a datagram, and fails if nothing comes back
//	standin watch                prints every IP packet that comes in
//	standin frame IFACE IP:PORT  sends a datagram past the stack, as a raw frame
//	standin mark N IP:PORT       sends a datagram from a socket with a mark
//	standin as UID COMMAND...    does one of these as another user
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"
)

// An entry is one line that is printed.
type entry struct {
	Time     time.Time `json:"time"`
	Host     string    `json:"host,omitempty"` // that a request or a question named
	Path     string    `json:"path,omitempty"`
	Body     string    `json:"body,omitempty"`
	Question string    `json:"question,omitempty"` // name asked of the resolver
	From     string    `json:"from,omitempty"`     // sender of a datagram
	Packet   string    `json:"packet,omitempty"`   // protocol, source and destination
	Problems []string  `json:"problems,omitempty"` // with Slack's payload
}

// printing keeps lines whole.
var printing sync.Mutex

func (e entry) write() {
	printing.Lock()
	defer printing.Unlock()
	e.Time = time.Now().UTC()
	_ = json.NewEncoder(os.Stdout).Encode(e)
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 3 && args[0] == "world":
		return world(args[1], args[2])
	case len(args) == 2 && args[0] == "slack":
		server := &http.Server{Addr: ":8080", ReadHeaderTimeout: 5 * time.Second, Handler: webhook(args[1])}
		return server.ListenAndServe()
	case len(args) == 2 && args[0] == "udp":
		return send(args[1])
	case len(args) == 1 && args[0] == "watch":
		return watch()
	case len(args) == 3 && args[0] == "frame":
		return frame(args[1], args[2])
	case len(args) == 3 && args[0] == "mark":
		mark, err := strconv.Atoi(args[1])
		return errors.Join(err, marked(mark, args[2]))
	case len(args) > 2 && args[0] == "as":
		uid, err := strconv.Atoi(args[1])
		if err := errors.Join(err, become(uid)); err != nil {
			return err
		}
		return run(args[2:])
	default:
		return errors.New("usage: standin world CERT KEY | slack TEXT | udp HOST:PORT | watch | frame IFACE IP:PORT | mark N IP:PORT | as UID COMMAND")
	}
}

// world serves until one of its servers fails.
func world(cert, key string) error {
	failed := make(chan error)
	server := &http.Server{Addr: ":443", ReadHeaderTimeout: 5 * time.Second, Handler: newOrigin()}
	go func() { failed <- server.ListenAndServeTLS(cert, key) }()
	go func() { failed <- serveUDP(":53", answerQuestion) }()
	go func() { failed <- serveUDP(":4433", func(datagram []byte) []byte { return datagram }) }()
	return <-failed
}

// newOrigin answers with what it saw. /hold never ends by itself, /finish ends
// when somebody asks for /release.
func newOrigin() http.Handler {
	release := make(chan struct{})
	var once sync.Once
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		entry{Host: r.Host, Path: r.URL.Path}.write()
		_, _ = fmt.Fprintf(w, "standin saw %s\n", r.Host)
		_ = http.NewResponseController(w).Flush()
		switch r.URL.Path {
		case "/release":
			once.Do(func() { close(release) })
		case "/finish":
			select {
			case <-release:
			case <-r.Context().Done():
			}
			_, _ = io.WriteString(w, "finished\n")
		case "/hold":
			<-r.Context().Done()
		}
	})
	return mux
}

// serveUDP prints every datagram's sender, and sends back what answer gives.
func serveUDP(addr string, answer func(datagram []byte) []byte) error {
	conn, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	datagram := make([]byte, 4096)
	for {
		n, from, err := conn.ReadFrom(datagram)
		if err != nil {
			return err
		}
		entry{From: from.String()}.write()
		if reply := answer(datagram[:n]); reply != nil {
			_, _ = conn.WriteTo(reply, from)
		}
	}
}

// send sends one datagram and waits 2 s for an answer.
func send(addr string) error {
	conn, err := net.Dial("udp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("out")); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 16))
	return err
}
