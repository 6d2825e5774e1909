package alerting_test

import (
	"net/netip"
	"time"

	"sallyport/alerting"
	"sallyport/allowlists"
)

// documentHead begins docs/events.md; the tables and examples that follow come
// from the code.
const documentHead = `# Events

Sallyport writes one JSON object a line: to standard output, or to the file that ` + "`log.events`" + ` names. Every decision is there,
allowed or refused. The JSON Schema is [events.schema.json](events.schema.json). This file is made from the code
(` + "`go test ./alerting -update`" + `), and a test holds it against it.

- Fields stand in the order given here. A field without a value is left out. New fields may come; none changes its meaning
  within ` + "`v`" + ` 1.
- ` + "`name`, `host`, `sni`, `alpn`, `method`, `cnames` and `error`" + ` may hold what a job chose. Everything that is not printable is
  written as ` + "`\\uXXXX`" + `: controls, line and paragraph separators, bidirectional marks, invisible characters. A byte that is not UTF-8
  becomes U+FFFD. So a line is always one event, and safe on a terminal. Escape it once more before it goes into HTML.
- A value is cut after 1,024 bytes, which ` + "`…`" + ` shows. A line has 16 KiB at most; one that would be longer has its values cut after 64
  bytes and its lists after 2 items.
- The line of a refusal is written before the refusal is sent, unless writing fails or takes longer than a second. Lines of
  allowed traffic may wait 100 ms.
- On SIGHUP the file is opened again, so that it can be renamed away. Every line is in one file, whole. A file that is deleted is made again ([below](#when-the-log-cannot-be-written)).
`

// documentTail ends docs/events.md.
const documentTail = `
## When the log cannot be written

Lines wait in a buffer of 64 MiB while writing is tried again, every second at the latest. What went out of a line in part is completed.
When the buffer is full, ` + "`log.on_error: continue`" + ` drops further lines and counts them in ` + "`sallyport_events_dropped_total`" + `;
` + "`deny`" + ` closes the gate when it is 7/8 full (` + "`log-degraded`" + `), until it is half empty. ` + "`log-degraded`" + ` events say so, once when it begins, once when
lines begin to be lost, and once when it is over, with the number of lines lost. ` + "`sallyport_log_stalled`" + ` is 1 from the first write that fails, or does not return for a
second, until lines go out again, and ` + "`sallyport_log_faults_total`" + ` counts.

A file that is deleted, or replaced by another, is noticed by the write that it takes from its readers, else within a second. Since lines in a file without a name are lost to everybody, and keep a full disk full, a
new file is made at the path, or the one there now is used. Each line is in one file that had a name after it was written: the lines under way are written again, and the new file begins with those (4 MiB at most) that alerting had not yet
kept, so that no alert is lost by a kill -9 in that second. ` + "`log-degraded`" + ` (` + "`missing`, `replaced`" + `) and an alert of the kind ` + "`policy`" + ` say so. If no new file can be made, lines wait in the buffer, as with any other log that cannot be written.
A file that is renamed is what a rotation leaves: it takes lines until SIGHUP. If none comes for 30 s a file at the path is used, and ` + "`log-degraded`" + ` (` + "`moved`" + `) says so. A file that is copied and then cut (` + "`copytruncate`" + `) is written on
from its begin; what comes between the copy and the cut, such a rotation loses, so prefer the one with SIGHUP:

    /var/log/sallyport/events.jsonl {
        daily
        rotate 14
        compress
        delaycompress
        missingok
        postrotate
            systemctl kill --kill-whom=main --signal=HUP sallyport-sidecar.service
        endscript
    }

## After a restart

With a file and ` + "`alerts.state_dir`" + `, alerting goes on behind the last line that it knows, before any new event: what was logged but not told to
anybody, as after kill -9, is told then, once or twice, never not at all. If the file was rotated while the daemon was down, the rest of
the old one is read first, if it lies in the same directory, not compressed; then, as in any other file than before, all of the new one. Refusals in the
last 4 MiB before that place are remembered, so that ` + "`denied-then-direct`" + ` is told across a restart. With standard output or without ` + "`state_dir`" + ` this is not promised, and ` + "`started`" + ` says so
(` + "`alerts_survive_restart`" + `).

The state is ` + "`alerts.jsonl`" + ` in ` + "`alerts.state_dir`" + `: lines with a checksum each, and a copy in memory. A damaged file stops neither the start nor the daemon. What can be read of
it is used, it is moved to ` + "`alerts.jsonl.corrupt-TIME`" + ` (the last three are kept), and ` + "`state-failed`" + ` says so. While the daemon runs it looks for its file every 10 s and compares what
is in it every minute; if that was deleted, replaced or overwritten, it is written anew, and nothing is lost. At a start, what the damage took is found in the event log, of its last
32 MiB and 24 h: alerts of medium and higher whose group is gone are told again (so some twice), or, where the place in the log is lost too, all events there are taken again.
Older alerts that were not delivered stay in the event log as ` + "`alert`" + ` lines, which is all that is left of them. A ` + "`state_dir`" + ` that is not there at all is a first start: no history is read.
On a disk that is full, broken or read-only the daemon starts and serves, tells alerts, and tries again with every change; what is not delivered then ends with the process.

With ` + "`alerts.state_dir`" + ` the book of answers survives too, kill -9 included: ` + "`book.jsonl`" + ` there has which names each client was answered with for an
address, and until when, at most 100 ms late. Without it, connections that a firewall redirects and that name no host are refused as ` + "`address-mismatch`" + `
after a restart until the client asks again. The file is bounded, and begun anew when it has grown to twice what is live. One that is damaged does not stop
the start: what can be read of it is used, the file is moved to ` + "`book.jsonl.bad`" + `, and ` + "`book-failed`" + ` says so. A file that is deleted, replaced or cut
while the daemon runs is noticed within 10 s and written anew; that, and a disk that does not take it, ` + "`book-failed`" + ` says too. Names that the policy no longer allows are left out.
`

// systemEvents are the events of kind system: when, and with which details.
var systemEvents = map[string][2]string{
	alerting.SystemStarted:      {"every listener is bound", "`version`, `pools`, `proxy`, `dns` and `transparent` (addresses bound), `user`, `capabilities`, `landlock` and `seccomp` (what the daemon may still do; docs/privileges.md), `placement`, `enforced`, `packets` (behind a firewall: `seen`, or why what it refuses outside TCP and DNS is not), `alerts_survive_restart`, `book_kept` (the book of answers goes on where the last daemon's ended)"},
	alerting.SystemReloaded:     {"a changed configuration serves, or the same one again after one that did not", "`policy`, `pools`"},
	alerting.SystemReloadFailed: {"a changed configuration is not valid, or cannot be read; told once for each change, and the last good one goes on serving", "`error` (the first mistake, with file and line)"},
	alerting.SystemGranted:      {"somebody let a pool reach a host for a while, by `sallyport allow` (docs/control.md)", "`id` (that rules of events have as `grant:ID`), `pool`, `host` (HOST:PORT), `ends`, `reason`, `by` (the user of the socket's other end, or `token`; a name before it is what they said), `recalled` (true at a start, for one that holds from before)"},
	alerting.SystemGrantEnded:   {"a grant is over", "`id`, `pool`, `host`, `why` (`time`, `removed`, `policy`: its pool is gone, or its host denied; `state`: the kept grants could not be read, and none of them holds), `by` (who removed it), `error`"},
	alerting.SystemStopping:     {"the daemon was told to end; new work is refused", "`drain_timeout`"},
	alerting.SystemLogDegraded:  {"the event log cannot be written, loses lines, has lost its file, or is well again", "`state` (`failing`; `dropping`; `missing`, `replaced`, `moved`: what became of its file, which goes on at its path; `recovered`), `cause`, `lost` (lines), `unwaited` (refusals sent before their line was written), `refusing`"},
	alerting.SystemResumed:      {"alerting went on in the log where it had stopped", "`events` (taken), `skipped` (lines that are no events), `from` and `to` (offsets), `rotated` (name of the file that the log was then), `whole_file` (why all of it was read), `lost_state` (why the last part of it was read), `error`"},
	alerting.SystemEventsMissed: {"events did not reach the correlator, whose queue was full, and no file had them", "`missed`, `error`"},
	alerting.SystemAlertFolded:  {"alerts were folded into one, as there were too many", "`alert`, `pool`, `severity`, `groups`, `count`, `into` (id of the alert that took them over)"},
	alerting.SystemPacketsLost:  {"the firewall refused packets that have no event, at most once a minute", "`lost` (the kernel could not tell of them; with CAP_NET_ADMIN kept, also those beyond the rate of 200 a second), `unrecorded` (beyond the bounds of what is remembered; docs/metrics.md)"},
	alerting.SystemBookFailed:   {"the kept book of answers (`book.jsonl` in `alerts.state_dir`) cannot be written, was not as it was left, or is kept again", "`state` (`failing`; `missing`, `damaged`: its file was deleted, or is not what was written, and is written anew from memory; `recovered`), `error`"},
	alerting.SystemEnforcement:  {"what was measured of the firewall is another than before", "`placement`, `state` (`in-place`, `not-in-place`, `unknown`), `by` (`table`: compared in the kernel; `probe`: by effect; `none`), `faults` (sentences; other ones of the same state at most once a minute), `lost` (it was measured before, and no longer can be)"},
	alerting.SystemSinkStopped:  {"a sink answered that its address or credentials are wrong; its alerts are kept", "`sink`, `cause`, `kept_hours`"},
	alerting.SystemSinkFailing:  {"a message did not reach a sink and comes again; or one arrived after that", "`sink`, `state` (`failing`, `recovered`), `cause`, `tries` (that failed)"},
	alerting.SystemStateFailed:  {"the state of alerts in `alerts.state_dir` cannot be written, was not as it was left, or is kept again", "`state` (`failing`: it cannot be written; `missing`, `replaced`, `damaged`: its file was deleted, is another one, or has not what was written, and is written anew from memory; `recovered`), `error`, `moved_to` (name that the damaged file has now), `lost_lines` (that could not be read), `records` (that are kept)"},
}

// documentExample is a line shown in docs/events.md.
type documentExample struct {
	what  string
	event alerting.Event
}

func documentExamples() []documentExample {
	head := alerting.Event{Time: noon, Pool: "build", Client: netip.MustParseAddr("10.20.0.7"), Policy: 3}
	dns := func(id, name string) alerting.Event {
		e := head
		e.Kind, e.ID, e.By, e.Name, e.Type, e.Took = alerting.KindDNS, id, alerting.ByClient, name, "A", 8214*time.Microsecond
		return e
	}
	answered := dns("k3v9x2m4p7qa", "registry.corp.example")
	answered.Verdict, answered.Reason, answered.Rule, answered.RCode = allowlists.Allow, allowlists.Allowed, "sallyport.yaml:14", "NOERROR"
	answered.Answers, answered.CNAMEs, answered.Upstream = []netip.Addr{netip.MustParseAddr("198.51.100.7")}, []string{"edge.corp.example"}, "10.0.0.2:53"
	refused := dns("m4p7qak3v9x2", "evil.example")
	refused.Reason, refused.RCode, refused.Took = allowlists.NotInAllowlist, "NXDOMAIN", 41*time.Microsecond

	conn := func(id, phase string, took time.Duration) alerting.Event {
		e := head
		e.Kind, e.ID, e.Phase, e.Via, e.Took, e.ClientPort, e.Port = alerting.KindConn, id, phase, "connect", took, 50123, 443
		return e
	}
	opened := conn("p7qak3v9x2m4", alerting.PhaseOpen, 23417*time.Microsecond)
	opened.Verdict, opened.Reason, opened.Rule = allowlists.Allow, allowlists.Allowed, "sallyport.yaml:14"
	opened.Host, opened.IP, opened.DNSID = "registry.corp.example", netip.MustParseAddr("198.51.100.7"), answered.ID
	closed := opened
	closed.Phase, closed.Took, closed.Sent, closed.Received = alerting.PhaseClose, 1912*time.Millisecond, 2210, 81532
	closed.SNI, closed.ALPN = "registry.corp.example", "h2,http/1.1"
	audited := conn("qak3v9x2m4p7", alerting.PhaseOpen, 31*time.Millisecond)
	audited.Verdict, audited.Reason, audited.Would = allowlists.Allow, allowlists.AllowedByAudit, allowlists.NotInAllowlist
	audited.Host, audited.IP = "mirror.example", netip.MustParseAddr("203.0.113.9")
	denied := conn("x2m4p7qak3v9", alerting.PhaseRefused, 96*time.Microsecond)
	denied.Reason, denied.Host = allowlists.NotInAllowlist, "evil.example\n{\"v\":1}"
	packet := conn("v3k9x2m4p7qb", alerting.PhaseRefused, 0)
	packet.Via, packet.Reason, packet.IP = "udp", allowlists.ProtocolBlocked, netip.MustParseAddr("203.0.113.9")

	alert := head
	alert.Kind, alert.ID, alert.Alert, alert.Severity = alerting.KindAlert, "v9x2m4p7qak3", "denied-egress", "medium"
	alert.Summary, alert.Key, alert.Count = "evil.example was refused 2 times", "denied-egress/build/evil.example", 2
	alert.First, alert.Last, alert.Evidence = noon, noon.Add(time.Second), []string{refused.ID, denied.ID}
	alert.Host, alert.Port, alert.Suggest = "evil.example", 443, "- evil.example"

	system := alerting.Event{Time: noon, Kind: alerting.KindSystem, Policy: 4, Event: alerting.SystemReloaded, Details: map[string]any{"policy": 4, "pools": 2}}
	return []documentExample{
		{"An allowed name", answered}, {"A refused name", refused},
		{"A tunnel opens", opened}, {"The same tunnel closes", closed},
		{"A connection that only audit mode lets through", audited},
		{"A refused connection to a name that tries to forge a line", denied},
		{"QUIC, which the firewall refused", packet},
		{"An alert", alert}, {"A reload", system},
	}
}
