package firewall

import (
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Apply puts the plan into the kernel, for the network namespace of the calling
// thread, in one transaction, in place of what is there: whatever happens, the
// old rules or the new ones hold, never a part. It needs CAP_NET_ADMIN; without
// it the error wraps fs.ErrPermission. Safe for concurrent use, also by several
// processes: the last one's plan holds.
func Apply(p *Plan) error {
	if err := p.Validate(); err != nil {
		return err
	}
	added, err := encode(p.tables())
	if err != nil {
		return err
	}
	return transact(append(removal(), added...))
}

// Remove takes our tables out of the kernel, and with them everything that was
// shut; it is no error if there are none. It needs what Apply needs.
func Remove() error { return transact(removal()) }

// removal deletes both tables, whether or not they are there.
func removal() []message {
	var out []message
	for _, family := range []string{"inet", "netdev"} {
		t := table{family: family}
		name := []netlink.Attribute{text(unix.NFTA_TABLE_NAME, tableName)}
		out = append(out,
			message{what: "adding " + t.title(), kind: unix.NFT_MSG_NEWTABLE, flags: unix.NLM_F_CREATE, family: familyOf(family), attrs: name},
			message{what: "deleting " + t.title(), kind: unix.NFT_MSG_DELTABLE, family: familyOf(family), attrs: name})
	}
	return out
}

func transact(messages []message) error {
	c, err := dial()
	if err != nil {
		return err
	}
	defer c.close()
	return hinted(c.transact(messages))
}

// hinted adds what to do about errors that people meet.
func hinted(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w; changing and reading nftables needs the capability NET_ADMIN", err)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOENT), errors.Is(err, unix.EPROTONOSUPPORT):
		return fmt.Errorf("%w; the kernel may lack it: egress hooks came with Linux 5.16 (CONFIG_NETFILTER_EGRESS), the rest with modules such as nft_redir, nft_reject_inet, nft_fib_inet, nft_log, nft_socket", err)
	default:
		return err
	}
}
