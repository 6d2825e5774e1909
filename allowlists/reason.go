package allowlists

// A Reason says why something was refused, or that it was not. The set is
// closed: docs/reasons.md has a section for each. The zero Reason is
// internal-error, so that a decision nobody made is a refusal.
type Reason uint8

// The reasons, in the order of docs/reasons.md.
const (
	InternalError Reason = iota
	Allowed
	AllowedByAudit
	NotInAllowlist
	PortNotAllowed
	ExpiredRule
	DeniedByRule
	AddressLiteral
	SpecialAddress
	SNIMismatch
	SNIMissing
	NotTLS
	ECHNotAllowed
	HostMismatch
	AddressMismatch
	ResolverBypass
	ProtocolBlocked
	UploadLimit
	NoPool
	BadHost
	BadRequest
	DNSTypeBlocked
	DNSMalformed
	LimitExceeded
	NoSuchHost
	UpstreamFailed
	TimedOut
	PolicyChanged
	LogDegraded
	NotReady
	ShuttingDown
	reasonCount
)

// auditAction is what a pool in audit mode does where enforce would refuse.
type auditAction uint8

const (
	auditRefuses        auditAction = iota
	auditForwards                   // carried all the same, recorded as allowed-by-audit
	auditForwardsIfOurs             // carried only to RFC 1918, RFC 6598 and ULA addresses
)

// reasonFacts is one row of the table that docs/reasons.md is checked against.
type reasonFacts struct {
	name   string
	status int // HTTP status of an explicit refusal; 0 where there is none
	audit  auditAction
	// Verdict allow with an error: we permitted it and the world failed.
	failure bool
}

var reasonTable = [reasonCount]reasonFacts{
	InternalError:   {name: "internal-error", status: 500},
	Allowed:         {name: "allowed"},
	AllowedByAudit:  {name: "allowed-by-audit"},
	NotInAllowlist:  {name: "not-in-allowlist", status: 403, audit: auditForwards},
	PortNotAllowed:  {name: "port-not-allowed", status: 403, audit: auditForwards},
	ExpiredRule:     {name: "expired-rule", status: 403, audit: auditForwards},
	DeniedByRule:    {name: "denied-by-rule", status: 403},
	AddressLiteral:  {name: "address-literal", status: 403, audit: auditForwards},
	SpecialAddress:  {name: "special-address", status: 403, audit: auditForwardsIfOurs},
	SNIMismatch:     {name: "sni-mismatch", audit: auditForwards},
	SNIMissing:      {name: "sni-missing", audit: auditForwards},
	NotTLS:          {name: "not-tls", audit: auditForwards},
	ECHNotAllowed:   {name: "ech-not-allowed", audit: auditForwards},
	HostMismatch:    {name: "host-mismatch", status: 403, audit: auditForwards},
	AddressMismatch: {name: "address-mismatch", audit: auditForwards},
	ResolverBypass:  {name: "resolver-bypass", status: 403, audit: auditForwards},
	ProtocolBlocked: {name: "protocol-blocked", audit: auditForwards},
	UploadLimit:     {name: "upload-limit", audit: auditForwards},
	NoPool:          {name: "no-pool", status: 403},
	BadHost:         {name: "bad-host", status: 400},
	BadRequest:      {name: "bad-request", status: 400},
	DNSTypeBlocked:  {name: "dns-type-blocked", audit: auditForwards},
	DNSMalformed:    {name: "dns-malformed"},
	LimitExceeded:   {name: "limit-exceeded", status: 429},
	NoSuchHost:      {name: "no-such-host", status: 502, failure: true},
	UpstreamFailed:  {name: "upstream-failed", status: 502, failure: true},
	TimedOut:        {name: "timed-out", status: 504, failure: true},
	PolicyChanged:   {name: "policy-changed"},
	LogDegraded:     {name: "log-degraded", status: 503},
	NotReady:        {name: "not-ready", status: 503},
	ShuttingDown:    {name: "shutting-down", status: 503},
}

// String gives the name used in events, headers and documents.
func (r Reason) String() string {
	if r >= reasonCount {
		r = InternalError
	}
	return reasonTable[r].name
}

// Status is the HTTP status of an explicit refusal for this reason, or 0
// where a refusal comes too late for one.
func (r Reason) Status() int {
	if r >= reasonCount {
		r = InternalError
	}
	return reasonTable[r].status
}

// Failure reports whether r is a failure of the world rather than a refusal of
// ours: the verdict is allow, and the event carries an error.
func (r Reason) Failure() bool { return r < reasonCount && reasonTable[r].failure }

// ParseReason finds the reason of that name.
func ParseReason(name string) (Reason, bool) {
	for r := range reasonTable {
		if reasonTable[r].name == name {
			return Reason(r), true
		}
	}
	return InternalError, false
}

// Reasons lists every reason, in the order of docs/reasons.md.
func Reasons() []Reason {
	all := make([]Reason, 0, reasonCount)
	for r := Allowed; r < reasonCount; r++ {
		all = append(all, r)
	}
	return append(all, InternalError)
}
