package alerting

import "context"

// An eventReader takes the events off the log: the correlator.
type eventReader interface {
	// open opens what the reader keeps its state in. It is called once, before
	// everything else.
	open() error
	// resume gives the place up to which events were taken before the last
	// stop; false if nothing was kept.
	resume() (Position, bool)
	// lost reports whether what was kept could not be read in full, so that
	// the log is to be asked about it.
	lost() bool
	// recall is shown an event from before the place of resume: what was taken
	// already, but has to be remembered, or, where lost, was told. It is called
	// between resume and the first take.
	recall(e *Event)
	// begin is told the place where this run's events begin. It is called once,
	// after the events of resume and before the first live one, and keeps the
	// place, where it can, so that a crash before the first checkpoint loses
	// nothing.
	begin(Position)
	// take takes one event, which is the reader's until it returns. Calls come one at a
	// time, from one goroutine, in the order of the lines. Where e.Pos is not
	// zero, everything up to there has been taken; a checkpoint keeps it
	// together with the state that it led to.
	take(e *Event)
	// run does what is due between events until ctx ends, then keeps its state.
	// No take comes after ctx ended.
	run(ctx context.Context) error
}
