package firewall

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Compare says how the kernel's tables, in the network namespace of the calling
// thread, differ from the plan: one sentence for each difference; nil if they
// are the same. It needs CAP_NET_ADMIN; without it the error wraps
// fs.ErrPermission.
func Compare(p *Plan) ([]string, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	c, err := dial()
	if err != nil {
		return nil, err
	}
	defer c.close()
	for range readAttempts {
		found, err := c.compareOnce(p)
		if !errors.Is(err, errChanged) {
			return found, hinted(err)
		}
	}
	return nil, errChanged
}

// readAttempts bounds how often a reading is begun again because somebody
// changed rules, anybody's, in between.
const readAttempts = 20

// compareOnce compares, and says errChanged if the rules were not the same all
// the while.
func (c *connection) compareOnce(p *Plan) ([]string, error) {
	before, err := c.generation()
	if err != nil {
		return nil, err
	}
	found, err := c.differences(p.tables())
	if err != nil {
		return nil, err
	}
	after, err := c.generation()
	if err == nil && before != after {
		err = errChanged
	}
	return found, err
}

// generation is a number that changes with every transaction.
func (c *connection) generation() (uint32, error) {
	answers, err := c.ask(unix.NFT_MSG_GETGEN, 0, unix.NFPROTO_UNSPEC, nil)
	if err != nil {
		return 0, fmt.Errorf("reading the kernel's rules: %w", err)
	}
	if len(answers) == 0 {
		return 0, errors.New("reading the kernel's rules: no answer")
	}
	return findNumber(answers[0], unix.NFTA_GEN_ID), nil
}

// differences compares both families' tables.
func (c *connection) differences(wanted []table) ([]string, error) {
	var found []string
	for _, family := range []string{"inet", "netdev"} {
		n := slices.IndexFunc(wanted, func(t table) bool { return t.family == family })
		there, flags, err := c.findTable(family)
		if err != nil {
			return nil, err
		}
		title := (&table{family: family}).title()
		switch {
		case n < 0 && there:
			found = append(found, title+" is there; this mode has none")
		case n < 0:
		case !there:
			found = append(found, title+" is not there")
		case flags&tableDormant != 0:
			found = append(found, title+" is dormant: its chains are asked nothing")
		default:
			list, err := c.tableDifferences(&wanted[n])
			if err != nil {
				return nil, err
			}
			found = append(found, list...)
		}
	}
	return found, nil
}

// tableDormant is NFT_TABLE_F_DORMANT.
const tableDormant = 1

// findTable looks for our table of a family.
func (c *connection) findTable(family string) (there bool, flags uint32, err error) {
	tables, err := c.dump(unix.NFT_MSG_GETTABLE, familyOf(family), nil)
	if err != nil {
		return false, 0, fmt.Errorf("reading the kernel's tables: %w", err)
	}
	for _, t := range tables {
		if findText(t, unix.NFTA_TABLE_NAME) == tableName {
			return true, findNumber(t, unix.NFTA_TABLE_FLAGS), nil
		}
	}
	return false, 0, nil
}

func (c *connection) tableDifferences(t *table) ([]string, error) {
	var found []string
	for _, part := range []func(*table) ([]string, error){c.chainDifferences, c.setDifferences, c.ruleDifferences} {
		list, err := part(t)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", t.title(), err)
		}
		found = append(found, list...)
	}
	return found, nil
}

// inTable reads all of a kind, and keeps what is in our table.
func (c *connection) inTable(t *table, kind int, tableAttr uint16) ([][]byte, error) {
	all, err := c.dump(kind, familyOf(t.family), marshal([]netlink.Attribute{text(tableAttr, tableName)}))
	return slices.DeleteFunc(all, func(b []byte) bool { return findText(b, tableAttr) != tableName }), err
}

// chainDifferences compares what chains there are, and where they are asked.
func (c *connection) chainDifferences(t *table) ([]string, error) {
	list, err := c.inTable(t, unix.NFT_MSG_GETCHAIN, unix.NFTA_CHAIN_TABLE)
	if err != nil {
		return nil, err
	}
	have := make(map[string]string)
	for _, b := range list {
		have[findText(b, unix.NFTA_CHAIN_NAME)] = placeOf(b)
	}
	var found []string
	for i := range t.chains {
		chain := &t.chains[i]
		place, there := have[chain.name]
		switch wanted := chain.place(); {
		case !there:
			found = append(found, fmt.Sprintf("chain %s of %s is not there", chain.label(), t.title()))
		case place != wanted:
			found = append(found, fmt.Sprintf("chain %s of %s has %s; it should have %s", chain.label(), t.title(), place, wanted))
		}
		delete(have, chain.name)
	}
	for _, name := range sortedKeys(have) {
		found = append(found, fmt.Sprintf("chain %s of %s is not ours", name, t.title()))
	}
	return found, nil
}

func (c *chain) label() string {
	if c.device != "" {
		return fmt.Sprintf("%s (device %s)", c.name, c.device)
	}
	return c.name
}

// place says where a chain is asked, and what becomes of packets that no rule
// decides on.
func (c *chain) place() string {
	if c.hook == noHook {
		return "no hook"
	}
	return placeText(c.kind(), hookNumber(c.hook), c.priority, policyNumber(c.drop), c.device)
}

// placeOf is the same of the kernel's.
func placeOf(b []byte) string {
	hook := find(b, unix.NFTA_CHAIN_HOOK)
	if hook == nil {
		return "no hook"
	}
	return placeText(findText(b, unix.NFTA_CHAIN_TYPE), findNumber(hook, unix.NFTA_HOOK_HOOKNUM), int32(findNumber(hook, unix.NFTA_HOOK_PRIORITY)),
		findNumber(b, unix.NFTA_CHAIN_POLICY), findText(hook, unix.NFTA_HOOK_DEV))
}

func placeText(kind string, hook uint32, priority int32, policy uint32, device string) string {
	verdict := "accept"
	if policy == policyNumber(true) {
		verdict = "drop"
	}
	out := fmt.Sprintf("type %s, hook %d, priority %d, policy %s", kind, hook, priority, verdict)
	if device != "" {
		out += ", device " + device
	}
	return out
}

// setDifferences compares sets with their elements.
func (c *connection) setDifferences(t *table) ([]string, error) {
	list, err := c.inTable(t, unix.NFT_MSG_GETSET, unix.NFTA_SET_TABLE)
	if err != nil {
		return nil, err
	}
	have := make(map[string][]byte)
	for _, b := range list {
		have[findText(b, unix.NFTA_SET_NAME)] = b
	}
	var found []string
	for i := range t.sets {
		s := &t.sets[i]
		b, there := have[s.name]
		delete(have, s.name)
		if !there {
			found = append(found, fmt.Sprintf("set %s of %s is not there", s.name, t.title()))
			continue
		}
		if findNumber(b, unix.NFTA_SET_KEY_LEN) != keyTypes[s.kind].length || findNumber(b, unix.NFTA_SET_FLAGS) != s.flags() {
			found = append(found, fmt.Sprintf("set %s of %s is of another type", s.name, t.title()))
			continue
		}
		differs, err := c.elementsDiffer(t, s)
		if err != nil {
			return nil, err
		}
		if differs {
			found = append(found, fmt.Sprintf("set %s of %s does not hold what it should: %s", s.name, t.title(), strings.Join(s.elementTexts(), ", ")))
		}
	}
	for _, name := range sortedKeys(have) {
		found = append(found, fmt.Sprintf("set %s of %s is not ours", name, t.title()))
	}
	return found, nil
}

func (c *connection) elementsDiffer(t *table, s *set) (bool, error) {
	list, err := c.dump(unix.NFT_MSG_GETSETELEM, familyOf(t.family), marshal([]netlink.Attribute{
		text(unix.NFTA_SET_ELEM_LIST_TABLE, tableName), text(unix.NFTA_SET_ELEM_LIST_SET, s.name),
	}))
	if err != nil {
		return false, err
	}
	have := make(map[element]bool)
	for _, b := range list {
		for _, e := range attributes(find(b, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			key := find(find(e.data, unix.NFTA_SET_ELEM_KEY), unix.NFTA_DATA_VALUE)
			have[element{string(key), findNumber(e.data, unix.NFTA_SET_ELEM_FLAGS)&unix.NFT_SET_ELEM_INTERVAL_END != 0}] = true
		}
	}
	// nft puts an end before the first range; it says nothing.
	if s.interval() {
		delete(have, element{string(make([]byte, keyTypes[s.kind].length)), true})
	}
	wanted := s.elements()
	for _, e := range wanted {
		if !have[e] {
			return true, nil
		}
	}
	return len(have) != len(wanted), nil
}

// ruleDifferences compares the rules of every chain, in their order.
func (c *connection) ruleDifferences(t *table) ([]string, error) {
	list, err := c.inTable(t, unix.NFT_MSG_GETRULE, unix.NFTA_RULE_TABLE)
	if err != nil {
		return nil, err
	}
	have := make(map[string][][]byte)
	for _, b := range list {
		name := findText(b, unix.NFTA_RULE_CHAIN)
		have[name] = append(have[name], find(b, unix.NFTA_RULE_EXPRESSIONS))
	}
	var found []string
	for i := range t.chains {
		chain := &t.chains[i]
		differences, err := chain.differences(t, have[chain.name])
		if err != nil {
			return nil, err
		}
		found = append(found, differences...)
	}
	return found, nil
}

// differences walks along the wanted rules and the kernel's.
func (c *chain) differences(t *table, have [][]byte) ([]string, error) {
	wanted := make([][]byte, len(c.rules))
	for n := range c.rules {
		list, err := encodeParts(familyOf(t.family), c.rules[n].parts)
		if err != nil {
			return nil, err
		}
		wanted[n] = marshal(list)
	}
	var found []string
	say := func(n int, how string) {
		found = append(found, fmt.Sprintf("rule %d of chain %s of %s %s: %s", n+1, c.label(), t.title(), how, c.rules[n].text()))
	}
	n, at := 0, 0
	for n < len(wanted) && at < len(have) {
		if sameRule(wanted[n], have[at]) {
			n, at = n+1, at+1
			continue
		}
		missing := slices.IndexFunc(wanted[n:], func(b []byte) bool { return sameRule(b, have[at]) })
		foreign := slices.IndexFunc(have[at:], func(b []byte) bool { return sameRule(wanted[n], b) })
		switch {
		case foreign > 0 && (missing < 0 || foreign <= missing):
			found = append(found, fmt.Sprintf("before rule %d of chain %s of %s stands another that is not ours", n+1, c.label(), t.title()))
			at += foreign
		case missing > 0:
			for range missing {
				say(n, "is missing")
				n++
			}
		default:
			say(n, "is another")
			n, at = n+1, at+1
		}
	}
	for ; n < len(wanted); n++ {
		say(n, "is missing")
	}
	if at < len(have) {
		found = append(found, fmt.Sprintf("at the end of chain %s of %s stand rules that are not ours: %d", c.label(), t.title(), len(have)-at))
	}
	return found, nil
}

// sameRule compares two lists of expressions.
func sameRule(wanted, have []byte) bool {
	w, h := attributes(wanted), attributes(have)
	if len(w) != len(h) {
		return false
	}
	for i := range w {
		name := findText(w[i].data, unix.NFTA_EXPR_NAME)
		if name != findText(h[i].data, unix.NFTA_EXPR_NAME) {
			return false
		}
		if name == "counter" { // counts
			continue
		}
		if !sameData(find(w[i].data, unix.NFTA_EXPR_DATA), find(h[i].data, unix.NFTA_EXPR_DATA)) {
			return false
		}
	}
	return true
}

// sameData compares attributes as a tree: what one side lacks must be zero on
// the other, as the kernel tells its defaults and leaves out what is none.
func sameData(wanted, have []byte) bool {
	w, h := attributes(wanted), attributes(have)
	for _, a := range w {
		i := slices.IndexFunc(h, func(b attribute) bool { return a.kind == b.kind })
		switch {
		case i < 0 && !zero(a.data):
			return false
		case i < 0:
		case a.nested && !sameData(a.data, h[i].data):
			return false
		case !a.nested && !bytes.Equal(a.data, h[i].data):
			return false
		}
	}
	for _, b := range h {
		if !zero(b.data) && !slices.ContainsFunc(w, func(a attribute) bool { return a.kind == b.kind }) {
			return false
		}
	}
	return true
}

func zero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }
