package test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log" //nolint:depguard // to silence it
	"net"
	"net/http"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A roughSlack is a stand-in for Slack, over TLS, that fails at random, and so
// does the way to it, until it is healed. It is fair in one thing: a message that
// it took once without an answer that arrived is answered when it takes it
// again, as nobody could keep a third copy from one who is never answered.
type roughSlack struct {
	*slack
	t       *testing.T
	chance  *chance
	address string // host:port, of an address that nobody else uses
	server  *http.Server
	good    *tls.Config
	foreign *tls.Config // of an authority that nobody trusts
	healed  chan struct{}
	gone    chan struct{} // closed when it is down and nobody listens any more
	heal    func()        // ends all faults for good
	ways    sync.WaitGroup

	mu      sync.Mutex     // guards the rest; taken before slack's
	faults  map[string]int // what was done to connections and requests, how often
	down    bool           // nobody listens, for good
	life    int            // of the daemon: what an earlier one sent is not taken any more
	second  time.Time      // when a message was last taken for the second time
	receipt []receipt
}

// A receipt is a message that was taken.
type receipt struct {
	at       time.Time
	names    []string
	answered bool // it was said that it was taken, and nobody cut that short
}

// chaosName is a name as a faultRun asks for in chaos.
var chaosName = regexp.MustCompile(`chaos\d+\.example`)

// roughFaults are what a request may meet, fairFaults one whose message was
// taken before; what stands twice is twice as likely. 404 ends a sink until the
// daemon starts again.
var (
	roughFaults = []string{
		"none", "none", "none", "none", "none", "none", "500", "500", "503", "503", "429", "429", "404", "502 and taken", "502",
		"cut", "cut and taken", "cut and taken", "slow", "slow", "hole", "hole and taken",
	}
	fairFaults = []string{"none", "none", "none", "none", "500", "503", "429"}
)

// chaosNames are the names in a message, each once.
func chaosNames(body []byte) []string {
	names := chaosName.FindAllString(string(body), -1)
	slices.Sort(names)
	return slices.Compact(names)
}

// newRoughSlack makes one that is well until it is let loose.
func newRoughSlack(t *testing.T, ip string, ca *testCA, chance *chance) *roughSlack {
	t.Helper()
	r := &roughSlack{
		slack: &slack{}, t: t, chance: chance, address: net.JoinHostPort(ip, "8443"), healed: make(chan struct{}), gone: make(chan struct{}), faults: make(map[string]int),
		good: &tls.Config{Certificates: []tls.Certificate{ca.issue(ip)}}, foreign: &tls.Config{Certificates: []tls.Certificate{newCA(t).issue(ip)}},
	}
	r.url = "https://" + r.address + "/services/" + slackCanary
	r.heal = sync.OnceFunc(func() { close(r.healed) })
	r.server = &http.Server{Handler: r, ErrorLog: log.New(io.Discard, "", 0)}
	t.Cleanup(func() {
		r.heal()
		r.ways.Wait()
		r.server.Close()
	})
	return r
}

// did counts a fault and gives its name.
func (r *roughSlack) did(fault string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults[fault]++
	return fault
}

// well reports whether it is healed.
func (r *roughSlack) well() bool {
	select {
	case <-r.healed:
		return true
	default:
		return false
	}
}

// ServeHTTP answers, or does not.
func (r *roughSlack) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	life := r.life
	r.mu.Unlock()
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return
	}
	fault, again := "none", q.Method == http.MethodPost && r.tookAny(body)
	if !r.well() {
		faults := roughFaults
		if again {
			faults = fairFaults
		}
		fault = r.did(faults[r.chance.below(len(faults))])
	}
	take := func(answered bool) {
		if q.Method == http.MethodPost {
			r.take(body, life, answered, again)
		}
	}
	switch fault {
	case "500":
		w.WriteHeader(http.StatusInternalServerError)
	case "503", "429":
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(map[string]int{"503": http.StatusServiceUnavailable, "429": http.StatusTooManyRequests}[fault])
	case "404":
		w.WriteHeader(http.StatusNotFound)
	case "502 and taken":
		take(false)
		w.WriteHeader(http.StatusBadGateway)
	case "502":
		w.WriteHeader(http.StatusBadGateway)
	case "cut and taken":
		take(false)
		cut(w, "HTTP/1.1 200 OK\r\nContent-Le")
	case "cut":
		cut(w, "")
	case "slow":
		r.wait(q, time.Duration(r.chance.below(4000))*time.Millisecond)
		take(q.Context().Err() == nil)
	case "hole and taken":
		take(false)
		r.wait(q, time.Hour)
		cut(w, "")
	case "hole":
		r.wait(q, time.Hour)
		cut(w, "")
	default:
		take(true)
	}
}

// cut sends the begin of an answer and breaks off.
func cut(w http.ResponseWriter, begin string) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_, _ = io.WriteString(conn, begin)
		conn.Close()
	}
}

// wait waits for a time, or until the client is gone or the chaos over.
func (r *roughSlack) wait(q *http.Request, most time.Duration) {
	select {
	case <-time.After(most):
	case <-q.Context().Done():
	case <-r.healed:
	}
}

// take keeps a message, unless the daemon that sent it was killed meanwhile.
func (r *roughSlack) take(body []byte, life int, answered, again bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if life != r.life {
		return
	}
	if again {
		r.second = time.Now()
	}
	checkSlackLimits(r.t, body)
	r.receipt = append(r.receipt, receipt{time.Now(), chaosNames(body), answered})
	r.slack.mu.Lock()
	defer r.slack.mu.Unlock()
	r.messages = append(r.messages, slackMessage{time.Now(), string(body)})
}

// tookAny reports whether a message holds a name that was taken before.
func (r *roughSlack) tookAny(body []byte) bool {
	for _, name := range chaosNames(body) {
		if r.mentions(name) > 0 {
			return true
		}
	}
	return false
}

// strike calls kill while nothing is taken, and not within two seconds of a
// message that was taken for the second time: one whose answers are all lost
// comes as often as they are.
func (r *roughSlack) strike(kill func()) {
	for {
		r.mu.Lock()
		if rest := 2*time.Second - time.Since(r.second); rest > 0 {
			r.mu.Unlock()
			<-time.After(rest)
			continue
		}
		kill()
		r.life++
		r.mu.Unlock()
		return
	}
}

// rage lets the way to it fail at random until it is healed or down.
func (r *roughSlack) rage() {
	r.ways.Go(func() {
		for !r.well() && !r.isDown() {
			switch r.chance.below(10) {
			case 0:
				r.did("refused")
				r.rest(r.chance, 2*time.Second)
			case 1:
				r.did("no answer to SYN")
				r.deaf(func() { r.rest(r.chance, 7*time.Second) })
			default:
				l := r.listen()
				r.rest(r.chance, 5*time.Second)
				l.Close()
			}
		}
		close(r.gone)
		if r.isDown() {
			<-r.healed
		}
		r.listen() // Close of the server closes it
	})
}

// rest waits for a time below most, all of it without chance, at most until it
// is healed.
func (r *roughSlack) rest(c *chance, most time.Duration) {
	if c != nil {
		most = time.Duration(c.below(int(most)))
	}
	select {
	case <-time.After(most):
	case <-r.healed:
	}
}

func (r *roughSlack) isDown() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.down
}

// goDown refuses connections until it is healed; one that is open already may
// still wait for its answer.
func (r *roughSlack) goDown() {
	r.mu.Lock()
	r.down = true
	r.mu.Unlock()
	<-r.gone
}

// listen serves at the address until the listener is closed.
func (r *roughSlack) listen() net.Listener {
	var l net.Listener
	eventually(r.t, "the address of the stand-in", func() (ok bool) {
		var err error
		l, err = net.Listen("tcp", r.address)
		return err == nil
	}, func() string { return r.address })
	go func() { _ = r.server.Serve(&roughListener{l, r}) }()
	return l
}

// deaf has the kernel drop every SYN while f runs: the queue of a socket that
// nobody accepts from is full.
func (r *roughSlack) deaf(f func()) {
	addr, err := net.ResolveTCPAddr("tcp", r.address)
	if err == nil {
		err = r.deafTo(addr, f)
	}
	if err != nil {
		r.t.Error(err)
	}
}

func (r *roughSlack) deafTo(addr *net.TCPAddr, f func()) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	eventually(r.t, "the address of the stand-in", func() bool { // its listener may not have gone yet
		err = unix.Bind(fd, &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())})
		return !errors.Is(err, unix.EADDRINUSE)
	}, addr.String)
	if err != nil {
		return fmt.Errorf("binding %v: %w", addr, err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		return err
	}
	for range 2 { // the first fills the queue, the second finds it full
		if c, err := net.DialTimeout("tcp", r.address, 100*time.Millisecond); err == nil {
			defer c.Close()
		}
	}
	f()
	return nil
}

// A roughListener wraps connections in TLS, or in what some take for it.
type roughListener struct {
	net.Listener
	r *roughSlack
}

// Accept is net.Listener's.
func (l *roughListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if l.r.well() {
			return tls.Server(c, l.r.good), nil
		}
		switch l.r.chance.below(16) {
		case 0:
			l.r.did("no TLS")
			go func() {
				_, _ = c.Read(make([]byte, 1))
				_, _ = io.WriteString(c, "220 this is not TLS\r\n")
				c.Close()
			}()
		case 1:
			l.r.did("another certificate")
			return tls.Server(c, l.r.foreign), nil
		case 2:
			l.r.did("closed in the handshake")
			c.Close()
		case 3:
			l.r.did("no handshake")
			l.r.ways.Go(func() {
				defer c.Close()
				l.r.rest(nil, 20*time.Second)
			})
		default:
			return tls.Server(c, l.r.good), nil
		}
	}
}
