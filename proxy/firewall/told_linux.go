package firewall

import (
	"encoding/binary"
	"strings"

	"golang.org/x/sys/unix"
)

// Countable counts the packets that our tables refused or passed where they
// tell of them, up to a rate: what is more than was told of had no place in the
// rate. Applying the tables counts from nothing again. It needs CAP_NET_ADMIN.
func Countable() (packets uint64, err error) {
	c, err := dial()
	if err != nil {
		return 0, err
	}
	defer c.close()
	for _, family := range []byte{unix.NFPROTO_INET, unix.NFPROTO_NETDEV} {
		rules, err := c.dump(unix.NFT_MSG_GETRULE, family, nil)
		if err != nil {
			return 0, err
		}
		telling := make(map[string]bool) // chains that tell, from that rule on
		for _, rule := range rules {
			if findText(rule, unix.NFTA_RULE_TABLE) != tableName {
				continue
			}
			chain := findText(rule, unix.NFTA_RULE_CHAIN)
			tells, counted := readRule(find(rule, unix.NFTA_RULE_EXPRESSIONS))
			if telling[chain] = telling[chain] || tells; telling[chain] {
				packets += counted
			}
		}
	}
	return packets, nil
}

// readRule looks for a log of refused or passed packets, and for a counter.
func readRule(expressions []byte) (tells bool, packets uint64) {
	for _, e := range attributes(expressions) {
		data := find(e.data, unix.NFTA_EXPR_DATA)
		switch findText(e.data, unix.NFTA_EXPR_NAME) {
		case "log":
			prefix := findText(data, unix.NFTA_LOG_PREFIX)
			tells = strings.HasPrefix(prefix, strings.TrimSpace(LogRefused)) || strings.HasPrefix(prefix, strings.TrimSpace(LogPassed))
		case "counter":
			if b := find(data, unix.NFTA_COUNTER_PACKETS); len(b) == 8 {
				packets = binary.BigEndian.Uint64(b)
			}
		}
	}
	return tells, packets
}
