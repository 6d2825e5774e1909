package main

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestPacerPausesAfterItsShareOfWork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var p pacer
		p.rest()
		pause := func() time.Duration {
			began := time.Now()
			p.rest()
			return time.Since(began)
		}
		if took := pause(); took != 0 {
			t.Errorf("without work it paused for %s", took)
		}
		time.Sleep(paceWork) // the work
		if took := pause(); took != pacePause {
			t.Errorf("after its share of work it paused for %s", took)
		}
	})
}
