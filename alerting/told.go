package alerting

// untold are the alerts that stay in the event log and reports: no sink is told
// of them, whatever its min_severity.
var untold = map[string]bool{"resolved-unused": true}

// told reports whether sinks are told of alerts of that kind. This is the one
// place that says so.
func told(alert string) bool { return !untold[alert] }
