// Package replay decides the questions and connections of an event log again,
// by another policy than the one that was in force, and tells what would have
// become of them: what a change of a policy breaks, and what it opens.
package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"sallyport/alerting"
	"sallyport/alerting/foreignlog"
	"sallyport/allowlists"
)

// Config is what a run needs to know.
type Config struct {
	// Sources are event logs, in any order.
	Sources []*foreignlog.Source
	// New decides; its verdicts are held against those of Old, and if that is
	// nil against what was done.
	New, Old *Judge
}

// A Report says what would be different.
type Report struct {
	Decisions int       `json:"decisions"` // that both sides decide
	First     time.Time `json:"first,omitzero"`
	Last      time.Time `json:"last,omitzero"`
	// AuditOnly counts the decisions that pass only as their pool is in audit.
	AuditOnly int     `json:"audit_only"`
	Refused   Changes `json:"newly_refused"`
	Allowed   Changes `json:"newly_allowed"`
}

// Run reads every source to its end.
func Run(ctx context.Context, config Config) (*Report, error) {
	report := new(Report)
	refused, allowed := newTable(), newTable()
	err := Each(ctx, config.Sources, func(e *alerting.Event) {
		now, ok := config.New.Decide(e)
		was := done{allowed: !e.Refused(), reason: e.Reason, rule: e.Rule}
		if config.Old != nil && ok {
			var old allowlists.Decision
			old, ok = config.Old.Decide(e)
			was = done{allowed: old.Allowed(), reason: old.Reason, rule: old.Rule.Where()}
		}
		if !ok {
			return
		}
		differs := now.Allowed() != was.allowed
		if e.Phase == alerting.PhaseClose && !differs {
			return // its first line counts
		}
		report.see(e, now)
		switch {
		case !differs:
		case was.allowed:
			refused.add(e, was, now)
		default:
			allowed.add(e, was, now)
		}
	})
	report.Refused, report.Allowed = refused.changes(), allowed.changes()
	return report, err
}

// see counts a decision.
func (r *Report) see(e *alerting.Event, now allowlists.Decision) {
	r.Decisions++
	if now.Reason == allowlists.AllowedByAudit {
		r.AuditOnly++
	}
	if r.First.IsZero() || e.Time.Before(r.First) {
		r.First = e.Time
	}
	if e.Time.After(r.Last) {
		r.Last = e.Time
	}
}

// Each calls visit with every event of some logs, one log after the other. A
// line that is no event of this version is left out, and counted in the Stats
// of its source; a log without a single event is an error.
func Each(ctx context.Context, sources []*foreignlog.Source, visit func(*alerting.Event)) error {
	for _, source := range sources {
		if err := each(ctx, source, visit); err != nil {
			return err
		}
		if source.Stats.Records == 0 && source.Stats.Lines > 0 {
			return fmt.Errorf("%s holds no event of Sallyport's", source.Name)
		}
	}
	return nil
}

func each(ctx context.Context, source *foreignlog.Source, visit func(*alerting.Event)) error {
	for n := 0; ; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		record, err := source.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if e, err := alerting.ParseEvent(record.Event); err == nil {
			visit(&e)
		}
	}
}
