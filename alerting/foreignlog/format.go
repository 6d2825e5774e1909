package foreignlog

import (
	"errors"
	"slices"
	"time"
)

// A Format is one kind of log. It never changes.
type Format struct {
	Name  string // as --format-of names it
	Title string // as people call it
	// Questions, Answers and Conns say what the format shows: who asked which
	// name, with which addresses, and who connected.
	Questions, Answers, Conns bool
	// Lacks is a sentence on what it cannot show; "" if nothing worth saying.
	Lacks string
	// window is how far its lines may be from the order of their times.
	window time.Duration
	looks  func(line []byte) bool
	parser func(options *Options) parser
}

// A parser reads the lines of one file. It is for one goroutine.
type parser interface {
	// parse reads a line without its end. It emits what the line completes. An
	// error says that the line is none of the format.
	parse(line []byte, emit func(Record)) error
	// flush emits what waits for more lines.
	flush(emit func(Record))
}

// Options are what a file does not say about itself.
type Options struct {
	// Zone is that of times without one; nil is UTC.
	Zone *time.Location
	// Latest is a time that no line is after, to find the year of times without
	// one; a day more is tolerated.
	Latest time.Time
}

// errLine is the fault of a line that is none of its format.
var errLine = errors.New("not a line of this format")

// The formats, in the order in which they are looked for.
var formats = []*Format{
	{
		Name: "zeek", Title: "Zeek (TSV)", Questions: true, Answers: true, Conns: true, window: time.Minute,
		looks: looksZeekTSV, parser: func(o *Options) parser { return &zeekTSV{} },
	},
	{
		Name: "sallyport", Title: "Sallyport's event log", Questions: true, Answers: true, Conns: true, window: 5 * time.Second,
		looks: looksOwn, parser: func(*Options) parser { return ownEvents{} },
	},
	{
		Name: "zeek-json", Title: "Zeek (JSON)", Questions: true, Answers: true, Conns: true, window: time.Minute,
		looks: looksZeekJSON, parser: func(*Options) parser { return zeekJSON{} },
	},
	{
		Name: "squid", Title: "Squid access.log (native)", Conns: true, window: time.Minute,
		Lacks: "server names in TLS and what the client sent: no sni-mismatch, and bytes sent count as one where anything came back",
		looks: looksSquid, parser: func(*Options) parser { return squidNative{} },
	},
	{
		Name: "squid-combined", Title: "Squid access.log (common, combined)", Conns: true, window: 5 * time.Second,
		Lacks: "the address connected to, how long it took, server names in TLS and what the client sent: no rebinding of connections, no sni-mismatch",
		looks: looksSquidCombined, parser: func(*Options) parser { return squidCombined{} },
	},
	{
		Name: "dnsmasq", Title: "dnsmasq", Questions: true, Answers: true, window: 10 * time.Second,
		Lacks: "lifetimes of answers (--ttl stands for them)",
		looks: looksDnsmasq, parser: func(o *Options) parser { return newDnsmasq(o) },
	},
	{
		Name: "unbound", Title: "Unbound", Questions: true, window: 15 * time.Second,
		Lacks: "the addresses in answers",
		looks: looksUnbound, parser: func(o *Options) parser { return newUnbound(o) },
	},
	{
		Name: "coredns", Title: "CoreDNS", Questions: true, window: 10 * time.Second,
		Lacks: "the addresses in answers",
		looks: looksCoreDNS, parser: func(o *Options) parser { return &coreDNS{stamps: stamps{o}} },
	},
}

// Formats lists every format.
func Formats() []*Format { return slices.Clone(formats) }

// FormatNamed finds a format by its name; nil if there is none.
func FormatNamed(name string) *Format {
	for _, f := range formats {
		if f.Name == name {
			return f
		}
	}
	return nil
}

// detect finds the format of a file by its first lines; nil if none is known.
func detect(lines [][]byte) *Format {
	for _, line := range lines {
		for _, f := range formats {
			if f.looks(line) {
				return f
			}
		}
	}
	return nil
}
