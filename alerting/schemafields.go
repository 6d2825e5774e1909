package alerting

// eventHead are the fields of every kind; system events have no id.
var eventHead = []EventField{
	{"v", "version", true, "The version of this format."},
	{"time", "time", true, "When it happened: UTC, RFC 3339, always six decimals."},
	{"kind", "kind", true, "`dns`, `conn`, `alert` or `system`."},
	{"id", "text", true, "Names the question, the connection or the alert. Refusals show it to the job, and `sallyport explain ID` looks it up. All lines of one connection have the same."},
	{"pool", "text", false, "The pool of the client; absent if none admits it."},
	{"client", "address", false, "The client's address."},
	{"iface", "text", false, "The interface that the client came in by, on a gateway."},
	{"policy", "count", false, "The generation of the policy that judged; a reload makes the next one."},
	{"job", "job", false, "The CI job behind the client, where it is known: `repo`, `workflow`, `run_id`, `job`, `ref`."},
}

// decisionFields are common to dns and conn.
var decisionFields = []EventField{
	{"verdict", "verdict", true, "`allow` or `deny`. With `allow`, a reason such as `upstream-failed` says what the world did to what we permitted."},
	{"reason", "reason", true, "Why; docs/reasons.md has a section for each."},
	{"would", "reason", false, "The reason that mode `enforce` would have refused with; there exactly if `reason` is `allowed-by-audit`."},
	{"rule", "text", false, "The rule that decided, as `file:line`."},
	{"quiet", "true", false, "Refused, and on the pool's `quiet` list: no `denied-egress`."},
}

var dnsFields = concat(
	[]EventField{
		{"by", "asker", true, "Who asked: `client`, or `proxy` for a client's connection."},
		{"name", "any text", true, "The name as asked, without the final dot; `\\.` and `\\DDD` stand for bytes that a label should not have (RFC 1035 section 5.1)."},
		{"type", "mnemonic", true, "The type asked for: `A`, `AAAA`, …, or `TYPE1234`."},
	},
	decisionFields,
	[]EventField{
		{"rcode", "any text", true, "The response code of the reply: `NOERROR`, `NXDOMAIN`, …; empty if none was sent."},
		{"answers", "addresses", true, "The addresses in the reply."},
		{"removed", "addresses", false, "Addresses that were taken out of the reply, being special (rebinding)."},
		{"cnames", "texts", false, "The chain of names from the one asked to the one that has the addresses."},
		{"cached", "flag", true, "Answered from the cache."},
		{"upstream", "text", false, "The resolver that answered."},
		{"resolver", "address", false, "Where the client sent the question, before it was redirected to us: a resolver that is neither ours nor the machine's. Absent if it meant us, or if nobody knows."},
		{"payload", "count", false, "Bytes of the answer's records that are neither addresses nor lead to them: TXT, NULL, MX and so on."},
		{"limit", "text", false, "With `limit-exceeded`: the key of the limit that is used up, where one key sets it."},
		{"search", "true", false, "The refused name is an allowed one plus a suffix of `dns.search`: no alert."},
		{"ms", "number", true, "Milliseconds from the question to the reply."},
		{"error", "text", false, "What went wrong at the upstream."},
	},
)

var connFields = concat(
	[]EventField{
		{"via", "way", true, "How it came: `connect` or `http` to the proxy, `tls` or `tcp` redirected to it; `udp`, `icmp` or `other` as packets that the firewall told of."},
		{"host", "any text", false, "The name, or the address, that was asked for."},
		{"port", "port", false, "The port that was asked for."},
		{"ip", "address", false, "The address judged, and dialled if it was allowed."},
		{"client_port", "port", false, "The client's port."},
		{"sni", "any text", false, "The server name in the ClientHello."},
		{"alpn", "text", false, "The application protocols that the ClientHello offers."},
		{"ech", "true", false, "The ClientHello has an encrypted part."},
		{"method", "text", false, "The method in the request head that the client sent: `CONNECT` for a tunnel through the proxy, `GET`, `POST` and so on for plain HTTP. Absent where there is no head, as in redirected TLS."},
	},
	decisionFields,
	[]EventField{
		{"dns_id", "text", false, "The id of the `dns` event whose answer was used."},
		{"names", "texts", false, "Names that this pool was answered with for the address, newest first."},
		{"redialled", "true", false, "The address given was not one of the name's; our own answer was dialled."},
		{"original", "address", false, "The address that a redialled connection was made to."},
		{"ambiguous", "true", false, "Several names have the address; the one asked last was taken."},
		{"sent", "count", false, "Bytes from the job to the world so far; in `progress` and `close`."},
		{"received", "count", false, "Bytes from the world to the job so far; in `progress` and `close`."},
		{"ms", "number", true, "Milliseconds since the connection came in."},
		{"error", "text", false, "What went wrong in the world: refused, reset, timed out."},
		{"phase", "phase", true, "`refused`, or `open` at the verdict, `progress` while it is open, and `close` with the final counts. Each id has exactly one line with `refused` or `open`. A tunnel refused by its first bytes was `open`, and its `close` has the reason."},
	},
)

var alertFields = []EventField{
	{"alert", "alert name", true, "What was noticed; docs/alerts.md has a section for each."},
	{"severity", "severity", true, "`info`, `medium`, `high` or `critical`."},
	{"summary", "any text", true, "One sentence for a person."},
	{"key", "any text", true, "Names the group: alerts with the same key are one story."},
	{"count", "count", true, "How often it happened so far."},
	{"first", "time", true, "When it happened first."},
	{"last", "time", true, "When it happened last."},
	{"evidence", "texts", true, "Ids of the `dns` and `conn` events behind it."},
	{"host", "any text", false, "The destination's name."},
	{"port", "port", false, "The destination's port."},
	{"ip", "address", false, "The destination's address."},
	{"suggest", "text", false, "The line that would allow it, where one would do."},
	{"closed", "text", false, "The group is closed, and why: `allowed since policy generation N`, or `allowed since the restart`. What comes later is a new group."},
}

var systemFields = []EventField{
	{"event", "alert name", true, "What happened; see below."},
	{"details", "details", false, "More about it: texts, numbers, booleans and lists of texts."},
}

func concat(lists ...[]EventField) (all []EventField) {
	for _, list := range lists {
		all = append(all, list...)
	}
	return all
}
