package firewall

import (
	"fmt"
	"strings"
)

// Text is what Apply puts into the kernel, as nft -f would load it: it replaces
// both tables in one transaction. The plan must be valid.
func Text(p *Plan) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Sallyport, %s: loaded in one transaction, in place of what is there.\n", p.Mode)
	for _, note := range p.notes() {
		fmt.Fprintf(&b, "# %s\n", note)
	}
	b.WriteString("\n")
	for _, family := range []string{"inet", "netdev"} {
		fmt.Fprintf(&b, "add table %[1]s %[2]s\ndelete table %[1]s %[2]s\n", family, tableName)
	}
	for _, t := range p.tables() {
		b.WriteString("\n")
		t.write(&b)
	}
	return b.String()
}

// notes say what a reader might miss in the rules: what is closed.
func (p *Plan) notes() []string {
	var notes []string
	for _, way := range p.Ways {
		who := "the job"
		if p.Mode == Gateway {
			who = fmt.Sprintf("pool %q", way.Pool)
		}
		for _, f := range []struct {
			family   string
			tcp, dns uint16
		}{{"IPv4", way.TCP.V4, way.DNS.V4}, {"IPv6", way.TCP.V6, way.DNS.V6}} {
			switch {
			case f.tcp == 0 && f.dns == 0:
				notes = append(notes, fmt.Sprintf("%s is closed for %s: no listener of ours takes it.", f.family, who))
			case f.tcp == 0:
				notes = append(notes, fmt.Sprintf("TCP over %s is closed for %s: no transparent listener takes it.", f.family, who))
			case f.dns == 0:
				notes = append(notes, fmt.Sprintf("DNS over %s is closed for %s: no listener of ours takes it.", f.family, who))
			}
		}
	}
	return notes
}

func (t *table) write(b *strings.Builder) {
	fmt.Fprintf(b, "table %s %s {\n", t.family, tableName)
	for i := range t.sets {
		s := &t.sets[i]
		flags := "constant"
		if s.interval() {
			flags = "constant, interval"
		}
		fmt.Fprintf(b, "\tset %s {\n\t\ttype %s\n\t\tflags %s\n\t\telements = { %s }\n\t}\n\n",
			s.name, s.kind, flags, strings.Join(s.elementTexts(), ", "))
	}
	for i := range t.chains {
		if i > 0 {
			b.WriteString("\n")
		}
		t.chains[i].write(b)
	}
	b.WriteString("}\n")
}

func (c *chain) write(b *strings.Builder) {
	fmt.Fprintf(b, "\tchain %s {\n", c.name)
	if c.hook != noHook {
		fmt.Fprintf(b, "\t\ttype %s hook %s", c.kind(), c.hook)
		if c.device != "" {
			fmt.Fprintf(b, " device %q", c.device)
		}
		fmt.Fprintf(b, " priority %d; policy %s;\n", c.priority, c.policy())
	}
	for _, r := range c.rules {
		fmt.Fprintf(b, "\t\t%s\n", r.text())
	}
	b.WriteString("\t}\n")
}

func (c *chain) kind() string {
	if c.nat {
		return "nat"
	}
	return "filter"
}

func (c *chain) policy() string {
	if c.drop {
		return "drop"
	}
	return "accept"
}

// text is the whole rule in nft's words.
func (r *rule) text() string {
	words := make([]string, len(r.parts))
	for i, p := range r.parts {
		words[i] = p.text()
	}
	if r.comment != "" {
		words = append(words, fmt.Sprintf("comment %q", r.comment))
	}
	return strings.Join(words, " ")
}

// elementTexts are a set's elements in nft's words.
func (s *set) elementTexts() []string {
	var out []string
	for _, port := range s.ports {
		out = append(out, fmt.Sprint(port))
	}
	for _, name := range s.names {
		out = append(out, fmt.Sprintf("%q", name))
	}
	for _, t := range s.types {
		out = append(out, fmt.Sprint(t))
	}
	for _, r := range s.ranges {
		switch prefix, ok := r.prefix(); {
		case r.first == r.last:
			out = append(out, r.first.String())
		case ok:
			out = append(out, prefix.String())
		default:
			out = append(out, fmt.Sprintf("%s-%s", r.first, r.last))
		}
	}
	return out
}

// equals is "" or nft's sign of the opposite.
func equals(not bool) string {
	if not {
		return "!= "
	}
	return ""
}

// oneOrSet is a value, or a set by its name.
func oneOrSet(value, set string) string {
	if set != "" {
		return "@" + set
	}
	return value
}

// word picks between two.
func word(condition bool, yes, no string) string {
	if condition {
		return yes
	}
	return no
}

func (m matchDevice) text() string {
	return word(m.out, "oifname ", "iifname ") + equals(m.not) + oneOrSet(fmt.Sprintf("%q", m.name), m.set)
}
func (m matchMember) text() string { return "meta sdifname @" + m.set }
func (m matchFamily) text() string {
	if m.frame {
		return "meta protocol " + word(m.six, "ip6", "ip")
	}
	return "meta nfproto " + word(m.six, "ipv6", "ipv4")
}
func (m matchProto) text() string { return "meta l4proto " + equals(m.not) + protoText(m.proto) }
func (m matchPort) text() string {
	return protoText(m.proto) + " dport " + oneOrSet(fmt.Sprint(m.port), m.set)
}
func (m matchAddr) text() string {
	return word(m.six, "ip6 ", "ip ") + word(m.source, "saddr ", "daddr ") + equals(m.not) + oneOrSet(m.addr.String(), m.set)
}
func (m matchICMP) text() string { return word(m.six, "icmpv6", "icmp") + " type @" + m.set }
func (m matchLocal) text() string {
	return "fib " + word(m.source, "saddr", "daddr") + " type " + equals(m.not) + "local"
}
func (m matchMany) text() string     { return "fib daddr type " + string(m.kind) }
func (matchSpoofed) text() string    { return "fib saddr . iif oif missing" }
func (matchRedirected) text() string { return "ct status dnat" }
func (matchReply) text() string      { return "ct direction reply" }
func (m matchState) text() string {
	return "ct state " + word(m.state == stateNew, "new", "established,related")
}
func (matchMark) text() string    { return fmt.Sprintf("ct mark 0x%08x", ownMark) }
func (matchOpening) text() string { return "tcp flags & (fin | syn | rst | ack) == syn" }
func (matchPushed) text() string  { return "tcp flags & (fin | syn | rst | psh) == psh" }
func (m matchUser) text() string  { return fmt.Sprintf("meta skuid %s%d", equals(m.not), m.uid) }
func (m matchCgroup) text() string {
	return fmt.Sprintf("socket cgroupv2 level %d %q", m.cgroup.Level, m.cgroup.Path)
}
func (matchRouting) text() string { return "exthdr rt exists" }

func (count) text() string { return "counter" }
func (s logTo) text() string {
	return fmt.Sprintf("limit rate %d/second burst %d packets log prefix %q group %d snaplen %d queue-threshold 1",
		s.rate, s.rate, s.prefix, s.group, logLength)
}
func (setMark) text() string      { return fmt.Sprintf("ct mark set 0x%08x", ownMark) }
func (s redirectTo) text() string { return fmt.Sprintf("redirect to :%d", s.port) }
func (resetTCP) text() string     { return "reject with tcp reset" }
func (unreachable) text() string  { return "reject with icmpx type port-unreachable" }
func (accept) text() string       { return "accept" }
func (drop) text() string         { return "drop" }
func (s goTo) text() string       { return "goto " + s.chain }

func protoText(proto uint8) string {
	switch proto {
	case protoICMP:
		return "icmp"
	case protoTCP:
		return "tcp"
	case protoUDP:
		return "udp"
	default:
		return "ipv6-icmp"
	}
}
