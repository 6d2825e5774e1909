package dnsfilter

import "sync"

// minEchoLetters is how many letters of random case tell a question of ours
// from one of a client that happens to look the same.
const minEchoLetters = 8

// echoes are the questions that are on their way to upstreams over UDP, as they
// were sent. One of them that comes in as a client's question went in a circle:
// the upstream asks us in turn, as a container engine's resolver does when the
// firewall takes its packets, too. Safe for concurrent use; it holds no more
// than maxInFlight.
type echoes struct {
	mu   sync.Mutex
	sent map[string]int // question section, in the case it was sent
}

// sending writes down a question until done is called. wire is the message.
func (e *echoes) sending(wire []byte) (done func()) {
	key := string(wire[headerSize : questionEnd(wire)+4])
	if lettersIn(key[:len(key)-4]) < minEchoLetters {
		return func() {}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.sent == nil {
		e.sent = make(map[string]int)
	}
	e.sent[key]++
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.sent[key]--; e.sent[key] == 0 {
			delete(e.sent, key)
		}
	}
}

// has reports whether a client's question section is that of a question of ours.
func (e *echoes) has(question []byte) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.sent[string(question)] > 0
}

// lettersIn counts the letters of a name.
func lettersIn(name string) (n int) {
	for _, c := range []byte(name) {
		if 'a' <= c|0x20 && c|0x20 <= 'z' {
			n++
		}
	}
	return n
}
