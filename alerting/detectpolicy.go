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
	var t ownTrouble
	switch {
	case e.Kind == KindSystem:
		t = systemTrouble(e)
	case !decides(e) || !e.Refused():
	case e.Reason == allowlists.LogDegraded, e.Reason == allowlists.NotReady, e.Reason == allowlists.ShuttingDown,
		e.Reason == allowlists.InternalError:
		t = ownTrouble{Medium, e.Reason.String(), fmt.Sprintf("work is refused: %s", e.Reason)}
	}
	if t.subject == "" {
		return nil
	}
	f := finding{alert: AlertPolicy, severity: t.severity, subject: t.subject, summary: t.summary, time: e.Time}
	if pool, ok := e.Details["pool"].(string); ok {
		f.pool = pool
	}
	if e.ID != "" {
		f.evidence = []string{e.ID}
		f.pool, f.client, f.asker = e.Pool, e.Subject().Key(), e.Client
	}
	return []finding{f}
}

// An ownTrouble is what is wrong with us; zero: nothing.
type ownTrouble struct {
	severity         Severity
	subject, summary string
}

// systemTrouble reads what a system event says is wrong.
func systemTrouble(e *Event) ownTrouble {
	switch e.Event {
	case SystemReloadFailed:
		return ownTrouble{Medium, SystemReloadFailed, "the policy was not reloaded; the last good one goes on serving"}.because(e.Details["error"])
	case SystemLogDegraded:
		return logTrouble(e).because(e.Details["cause"])
	case SystemStateFailed:
		return stateTrouble(e).because(e.Details["error"])
	case SystemBookFailed:
		if e.Details["state"] == stateWell {
			return ownTrouble{}
		}
		return ownTrouble{Medium, SystemBookFailed, "the book of answers is not kept as it should be"}.because(e.Details["error"])
	case SystemEnforcement:
		return enforcementTrouble(e)
	case SystemGranted:
		return grantTrouble(e)
	default:
		return ownTrouble{}
	}
}

func logTrouble(e *Event) ownTrouble {
	switch e.Details["state"] {
	case logWell:
		return ownTrouble{}
	case logMissing, logReplaced, logMoved:
		return ownTrouble{Medium, SystemLogDegraded + " file", "the file of the event log was not left alone"}
	default:
		return ownTrouble{Medium, SystemLogDegraded, "the event log is degraded"}
	}
}

func stateTrouble(e *Event) ownTrouble {
	switch e.Details["state"] {
	case stateWell:
		return ownTrouble{}
	case stateWrite:
		return ownTrouble{Medium, SystemStateFailed, "the state of alerts is not kept"}
	default:
		return ownTrouble{Medium, SystemStateFailed + " " + stateDamaged, "the kept state of alerts was deleted or damaged"}
	}
}

// grantTrouble is no trouble yet, but what somebody opened past the reviewed
// policy is told to those who look after it.
func grantTrouble(e *Event) ownTrouble {
	if recalled, _ := e.Details["recalled"].(bool); recalled {
		return ownTrouble{} // it was told of when it was granted
	}
	text := func(key string) string { t, _ := e.Details[key].(string); return t }
	return ownTrouble{Medium, SystemGranted + " " + text("id"), fmt.Sprintf("pool %s may reach %s until %s, granted by %s: %s",
		text("pool"), text("host"), text("ends"), text("by"), text("reason"))}
}

func enforcementTrouble(e *Event) ownTrouble {
	t := ownTrouble{High, SystemEnforcement, "enforcement can no longer be measured"}
	switch lost, _ := e.Details["lost"].(bool); {
	case e.Details["state"] == "not-in-place":
		t.summary = "enforcement is not in place"
	case !lost:
		return ownTrouble{}
	}
	if faults := texts(e.Details["faults"]); len(faults) > 0 {
		return t.because(faults[0])
	}
	return t
}

// because adds a cause, if there is one, to what is wrong.
func (t ownTrouble) because(cause any) ownTrouble {
	if text, ok := cause.(string); ok && text != "" && t.subject != "" {
		t.summary += ": " + text
	}
	return t
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
