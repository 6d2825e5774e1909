//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A quiz is questions to ask and what is right for an answer.
type quiz struct {
	next    func(i uint64) []byte // the i-th question, as it stands in a packet
	refused bool                  // each must be refused
	sockets int
	flying  int // questions under way on each socket
	length  time.Duration
	most    int // questions for each socket; 0 is as many as fit
}

// question packs a name, A, IN.
func question(name string) []byte {
	var q []byte
	for label := range strings.SplitSeq(name, ".") {
		q = append(append(q, byte(len(label))), label...)
	}
	return append(q, 0, 0, typeA, 0, 1)
}

// inTurn asks the same names again and again.
func inTurn(names []string) func(uint64) []byte {
	packed := make([][]byte, len(names))
	for i, name := range names {
		packed[i] = question(name)
	}
	return func(i uint64) []byte { return packed[i%uint64(len(packed))] }
}

// neverTwice asks for a random label below a name.
func neverTwice(zone string) func(uint64) []byte {
	below := question(zone)
	return func(uint64) []byte {
		return append(fmt.Appendf([]byte{16}, "%016x", rand.Uint64()), below...)
	}
}

// An asker keeps questions under way on one socket.
type asker struct {
	q        *quiz
	echo     bool // the subject echoes, and answers nothing
	fd       int
	out, in  *batch
	turn     []uint16 // counts the questions of each slot; a part of the id
	sent     []time.Time
	asked    [][]byte
	free     []int // slots without a question
	sequence uint64
	total    int
	took     []int64 // nanoseconds
	wrong    int64   // wrong answers, and none
	why      string
}

// run asks until the time is over or all is asked.
func (a *asker) run(addr string) {
	fd, err := udpSocket("", addr)
	if err != nil {
		a.wrong, a.why = a.wrong+1, err.Error()
		return
	}
	defer func() { _ = syscall.Close(fd) }()
	a.fd = fd
	n := a.q.flying
	a.out, a.in = newBatch(n, 512), newBatch(n, 1500)
	a.turn, a.sent, a.asked = make([]uint16, n), make([]time.Time, n), make([][]byte, n)
	for i := range n {
		a.free = append(a.free, i)
	}
	a.sequence = rand.Uint64N(1 << 20)
	for end := time.Now().Add(a.q.length); ; {
		over := time.Now().After(end) || (a.q.most > 0 && a.total >= a.q.most)
		if over && len(a.free) == n {
			return
		}
		if !over && len(a.free) > 0 {
			err = a.ask()
		}
		if err == nil {
			err = a.hear()
		}
		if err != nil {
			a.wrong, a.why = a.wrong+1, err.Error()
			return
		}
	}
}

// stride is the number of ids of each slot.
func (a *asker) stride() uint16 { return uint16(65535 / a.q.flying) }

// ask sends a question for each free slot.
func (a *asker) ask() error {
	now := time.Now()
	for n, slot := range a.free {
		a.turn[slot] = (a.turn[slot] + 1) % a.stride()
		a.asked[slot] = a.q.next(a.sequence)
		a.sequence++
		packet := binary.BigEndian.AppendUint16(a.out.buffers[n][:0], uint16(slot)*a.stride()+a.turn[slot])
		packet = append(packet, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0)
		a.out.setLength(n, len(append(packet, a.asked[slot]...)))
		a.sent[slot] = now
	}
	n := len(a.free)
	a.total += n
	a.free = a.free[:0]
	return a.out.send(a.fd, n)
}

// hear takes the answers that are there. After 2 s without one, all that is
// under way is lost.
func (a *asker) hear() error {
	n, err := a.in.receive(a.fd, false)
	switch {
	case errors.Is(err, syscall.EINTR):
		return nil
	case errors.Is(err, syscall.EAGAIN):
		return a.lose()
	case err != nil:
		return err
	}
	now := time.Now()
	for i := range n {
		a.judge(a.in.packet(i), now)
	}
	return nil
}

func (a *asker) lose() error {
	lost := int64(a.q.flying - len(a.free))
	a.wrong += lost
	a.why = "no answer"
	if a.wrong > int64(8*a.q.flying) {
		return errors.New("no answers")
	}
	a.free = a.free[:0]
	for i := range a.q.flying {
		a.turn[i] = (a.turn[i] + 1) % a.stride()
		a.free = append(a.free, i)
	}
	return nil
}

// judge holds an answer against its question. One that is late is passed by.
func (a *asker) judge(packet []byte, now time.Time) {
	if len(packet) < 12 {
		return
	}
	id := binary.BigEndian.Uint16(packet)
	slot := int(id / a.stride())
	if slot >= a.q.flying || id%a.stride() != a.turn[slot] || a.sent[slot].IsZero() {
		return
	}
	if why := fault(packet, a.asked[slot], a.q.refused, a.echo); why != "" {
		a.wrong++
		a.why = why
	} else {
		a.took = append(a.took, int64(now.Sub(a.sent[slot])))
	}
	a.sent[slot] = time.Time{}
	a.free = append(a.free, slot)
}

// fault says what is wrong with an answer; empty if nothing is.
func fault(packet, asked []byte, refused, echo bool) string {
	if packet[2]&0x80 == 0 {
		return "no answer, but a question"
	}
	if echo {
		return ""
	}
	code, records := packet[3]&15, binary.BigEndian.Uint16(packet[6:])
	if len(packet) >= 12+len(asked) && !bytes.EqualFold(packet[12:12+len(asked)], asked) { // who refuses may leave it out
		return "the answer to another question"
	}
	if refused != (code == 3 || code == 5) || (!refused && (code != 0 || records == 0)) {
		return fmt.Sprintf("code %d and %d records", code, records)
	}
	return ""
}

// hold asks a subject a quiz.
func hold(s *subject, q quiz) Sample {
	askers := make([]asker, q.sockets)
	var running sync.WaitGroup
	w := openWindow(s.pid)
	for i := range askers {
		askers[i] = asker{q: &q, echo: s.direct}
		running.Go(func() { askers[i].run(s.dns) })
	}
	running.Wait()
	out := newSample()
	var took []int64
	for i := range askers {
		took = append(took, askers[i].took...)
		out.Errors += askers[i].wrong
		if askers[i].why != "" {
			out.FirstError = askers[i].why
		}
	}
	out.Ops = float64(len(took))
	w.closeInto(&out)
	out.Values[rate] = out.Ops / out.Seconds
	out.latencies(took)
	return out
}
