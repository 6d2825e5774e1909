package alerting_test

import (
	"testing"

	"sallyport/alerting"
)

func TestNoSinkIsToldOfWhatIsOnlyReported(t *testing.T) {
	if alerting.Told("resolved-unused") {
		t.Error("sinks are told of resolved-unused")
	}
	for _, alert := range alerting.KnownAlerts() {
		if alert != "resolved-unused" && !alerting.Told(alert) {
			t.Errorf("no sink is told of %s", alert)
		}
	}
}
