package alerting

import (
	"fmt"
	"time"

	"sallyport/allowlists"
)

// policyTrouble raises policy for what happens to us rather than to a job: a
// reload that failed, a log that is degraded, refusals for reasons of our own.
// One group per cause. It keeps no state.
type policyTrouble struct{}

func (policyTrouble) observe(e *Event, _ time.Time) []finding {
	severity, subject, summary := Medium, "", ""
	switch {
	case e.Kind == KindSystem && e.Event == SystemReloadFailed:
		subject, summary = SystemReloadFailed, "the policy was not reloaded; the last good one goes on serving"
	case e.Kind == KindSystem && e.Event == SystemLogDegraded:
		switch e.Details["state"] {
		case logWell:
			return nil
		case logMissing, logReplaced, logMoved:
			subject, summary = SystemLogDegraded+" file", "the file of the event log was not left alone"
		default:
			subject, summary = SystemLogDegraded, "the event log is degraded"
		}
		if cause, ok := e.Details["cause"].(string); ok && cause != "" {
			summary += ": " + cause
		}
	case e.Kind == KindSystem && e.Event == SystemStateFailed:
		switch e.Details["state"] {
		case stateWell:
			return nil
		case stateWrite:
			subject, summary = SystemStateFailed, "the state of alerts is not kept"
		default:
			subject, summary = SystemStateFailed+" "+stateDamaged, "the kept state of alerts was deleted or damaged"
		}
		if cause, ok := e.Details["error"].(string); ok && cause != "" {
			summary += ": " + cause
		}
	case e.Kind == KindSystem && e.Event == SystemBookFailed:
		if e.Details["state"] == stateWell {
			return nil
		}
		subject, summary = SystemBookFailed, "the book of answers is not kept as it should be"
		if cause, ok := e.Details["error"].(string); ok && cause != "" {
			summary += ": " + cause
		}
	case e.Kind == KindSystem && e.Event == SystemEnforcement:
		switch lost, _ := e.Details["lost"].(bool); {
		case e.Details["state"] == "not-in-place":
			severity, subject, summary = High, SystemEnforcement, "enforcement is not in place"
		case lost:
			severity, subject, summary = High, SystemEnforcement, "enforcement can no longer be measured"
		default:
			return nil
		}
		if faults := texts(e.Details["faults"]); len(faults) > 0 {
			summary += ": " + faults[0]
		}
	case !decides(e) || !e.Refused():
		return nil
	case e.Reason == allowlists.LogDegraded, e.Reason == allowlists.NotReady, e.Reason == allowlists.ShuttingDown,
		e.Reason == allowlists.InternalError:
		subject, summary = e.Reason.String(), fmt.Sprintf("work is refused: %s", e.Reason)
	default:
		return nil
	}
	f := finding{alert: AlertPolicy, severity: severity, subject: subject, summary: summary, time: e.Time}
	if e.ID != "" {
		f.evidence = []string{e.ID}
		f.pool, f.client = e.Pool, e.Subject().Key()
	}
	return []finding{f}
}

func (policyTrouble) expire(time.Time) {}

// expiring finds the rules of a policy that end within warning.
func expiring(policy *allowlists.Policy, warning time.Duration, now time.Time) []finding {
	if policy == nil {
		return nil
	}
	var findings []finding
	for _, pool := range policy.Pools() {
		for i := range pool.Spec().Allow {
			rule := &pool.Spec().Allow[i]
			left := rule.Expires.Sub(now)
			if rule.Expires.IsZero() || left <= 0 || left > warning {
				continue
			}
			findings = append(findings, finding{
				alert: AlertPolicy, severity: Medium, pool: pool.Name(), subject: "expires " + rule.Where(), time: now,
				summary: fmt.Sprintf("the rule %s at %s of pool %s ends on %s", rule.Text, rule.Where(), pool.Name(), rule.Expires.UTC().Format(time.DateOnly)),
			})
			if len(findings) == maxExpiring {
				return findings
			}
		}
	}
	return findings
}

// maxExpiring is how many rules are warned about at once.
const maxExpiring = 64

// texts reads a list of strings out of an event's details, whether it was just
// recorded or read back.
func texts(value any) []string {
	switch list := value.(type) {
	case []string:
		return list
	case []any:
		var out []string
		for _, v := range list {
			if text, ok := v.(string); ok {
				out = append(out, text)
			}
		}
		return out
	default:
		return nil
	}
}
