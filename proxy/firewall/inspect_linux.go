package firewall

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// A need is one part of the kernel, and a table that takes it.
type need struct {
	what  string
	table table
}

// needs are the parts of the kernel that a plan's rules are made of.
func needs(p *Plan) []need {
	one := func(what string, at chain, parts ...part) need {
		at.name, at.rules = "trial", []rule{a("", parts...)}
		return need{what, table{family: "inet", chains: []chain{at}}}
	}
	list := []need{
		one("nf_tables for inet", chain{hook: input}, count{}),
		one("redirects (nft_chain_nat, nft_redir)", chain{hook: prerouting, priority: natPriority, nat: true}, matchProto{proto: protoTCP}, redirectTo{1}),
		one("connection tracking (nft_ct)", chain{hook: input}, matchRedirected{}, count{}),
		one("refusals (nft_reject_inet)", chain{hook: input}, matchProto{proto: protoTCP}, resetTCP{}),
		one("the packet log (nft_log)", chain{hook: input}, p.log(LogRefused, refusedRate)),
		one("routes in rules (nft_fib_inet)", chain{hook: prerouting}, matchLocal{}, matchSpoofed{}, drop{}),
	}
	if p.Mode == Sidecar {
		list = append(list, need{"egress hooks (Linux 5.16, CONFIG_NETFILTER_EGRESS)", table{family: "netdev", chains: []chain{
			{name: "trial", hook: egress, device: "lo", rules: []rule{a("", matchUser{uid: p.Own.UID}, count{})}},
		}}})
	}
	if p.Own.Cgroup.ID != 0 {
		list = append(list, one("cgroups in rules (nft_socket)", chain{hook: output}, matchCgroup{p.Own.Cgroup}, count{}))
	}
	return list
}

// Lacks says which parts of the kernel a plan needs and does not find, one for
// each. It offers rules to the kernel, in the network namespace of the calling
// thread, and never commits them, as nft --check does: nothing changes but that
// modules are loaded. It needs what Apply needs.
func Lacks(p *Plan) ([]string, error) {
	c, err := dial()
	if err != nil {
		return nil, err
	}
	defer c.close()
	var lacks []string
	for _, n := range needs(p) {
		messages, err := encodeTable(&n.table)
		if err != nil {
			return nil, err
		}
		switch err := c.batch(messages, false); {
		case errors.Is(err, unix.EPERM):
			return nil, hinted(err)
		case err != nil:
			lacks = append(lacks, fmt.Sprintf("%s: %v", n.what, err))
		}
	}
	return lacks, nil
}

// otherFamilies are those whose chains see IP packets where ours do.
var otherFamilies = []struct {
	name   string
	number byte
}{{"inet", unix.NFPROTO_INET}, {"ip", unix.NFPROTO_IPV4}, {"ip6", unix.NFPROTO_IPV6}}

// hookNames are the hooks of these families (linux/netfilter.h).
var hookNames = map[uint32]string{
	unix.NF_INET_PRE_ROUTING: "prerouting", unix.NF_INET_LOCAL_IN: "input", unix.NF_INET_FORWARD: "forward",
	unix.NF_INET_LOCAL_OUT: "output", unix.NF_INET_POST_ROUTING: "postrouting",
}

// OtherChains reads the chains of other tables that are asked about IP packets,
// in the network namespace of the calling thread. It needs CAP_NET_ADMIN;
// without it the error wraps fs.ErrPermission.
func OtherChains() ([]OtherChain, error) {
	c, err := dial()
	if err != nil {
		return nil, err
	}
	defer c.close()
	for range readAttempts {
		chains, err := c.otherChains()
		if !errors.Is(err, errChanged) {
			return chains, hinted(err)
		}
	}
	return nil, errChanged
}

func (c *connection) otherChains() ([]OtherChain, error) {
	var all []OtherChain
	for _, family := range otherFamilies {
		list, err := c.dump(unix.NFT_MSG_GETCHAIN, family.number, nil)
		if err != nil {
			return nil, fmt.Errorf("reading the kernel's chains: %w", err)
		}
		rules, err := c.dump(unix.NFT_MSG_GETRULE, family.number, nil)
		if err != nil {
			return nil, fmt.Errorf("reading the kernel's rules: %w", err)
		}
		for _, b := range list {
			other := otherChain(family.name, b)
			if other.Hook == "" || other.Table == tableName && family.name == "inet" {
				continue
			}
			for _, rule := range rules {
				if findText(rule, unix.NFTA_RULE_TABLE) == other.Table && findText(rule, unix.NFTA_RULE_CHAIN) == other.Name {
					other.Translates = append(other.Translates, translatesOn(find(rule, unix.NFTA_RULE_EXPRESSIONS))...)
				}
			}
			all = append(all, other)
		}
	}
	return all, nil
}

// otherChain reads one chain; one without a hook has none.
func otherChain(family string, b []byte) OtherChain {
	hook := find(b, unix.NFTA_CHAIN_HOOK)
	if hook == nil {
		return OtherChain{}
	}
	return OtherChain{
		Family: family, Table: findText(b, unix.NFTA_CHAIN_TABLE), Name: findText(b, unix.NFTA_CHAIN_NAME), Kind: findText(b, unix.NFTA_CHAIN_TYPE),
		Hook: hookNames[findNumber(hook, unix.NFTA_HOOK_HOOKNUM)], Priority: int32(findNumber(hook, unix.NFTA_HOOK_PRIORITY)),
		Drops: find(b, unix.NFTA_CHAIN_POLICY) != nil && findNumber(b, unix.NFTA_CHAIN_POLICY) == policyNumber(true),
	}
}

// translatesOn are the interfaces that a rule names, if it changes the source
// of packets.
func translatesOn(expressions []byte) []string {
	var devices []string
	var loaded uint32
	translates := false
	for _, e := range attributes(expressions) {
		data := find(e.data, unix.NFTA_EXPR_DATA)
		switch findText(e.data, unix.NFTA_EXPR_NAME) {
		case "meta":
			loaded = findNumber(data, unix.NFTA_META_KEY)
		case "cmp":
			if findNumber(data, unix.NFTA_CMP_OP) == unix.NFT_CMP_EQ {
				devices = append(devices, deviceOf(loaded, find(find(data, unix.NFTA_CMP_DATA), unix.NFTA_DATA_VALUE))...)
			}
			loaded = 0
		case "masq":
			translates = true
		case "nat":
			translates = translates || findNumber(data, unix.NFTA_NAT_TYPE) == unix.NFT_NAT_SNAT
		case "target": // of iptables, by way of nf_tables
			translates = translates || slices.Contains([]string{"MASQUERADE", "SNAT"}, findText(data, unix.NFTA_TARGET_NAME))
		}
	}
	if !translates {
		return nil
	}
	return devices
}

// deviceOf is the interface that a value names, if it is one.
func deviceOf(key uint32, value []byte) []string {
	switch {
	case key == unix.NFT_META_OIFNAME || key == unix.NFT_META_IIFNAME:
		return []string{string(bytes.TrimRight(value, "\x00"))}
	case (key == unix.NFT_META_OIF || key == unix.NFT_META_IIF) && len(value) == 4:
		if device, err := net.InterfaceByIndex(int(binary.NativeEndian.Uint32(value))); err == nil {
			return []string{device.Name}
		}
	}
	return nil
}

// ForeignNamespace reports whether this network namespace belongs to a user
// namespace above that of this process, so that no capability of ours counts in
// it (user_namespaces(7), ioctl_nsfs(2)).
func ForeignNamespace() bool {
	network, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return false
	}
	defer network.Close()
	owner, err := unix.IoctlRetInt(int(network.Fd()), unix.NS_GET_USERNS)
	if err != nil {
		return errors.Is(err, unix.EPERM) // above ours
	}
	unix.Close(owner)
	return false
}
