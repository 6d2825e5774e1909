// Package firewall is what makes Sallyport the only way out: the nftables
// tables that take a job's packets to our listeners and refuse the rest, what is
// read back of them, and what was refused there.
//
// A Plan is the whole wish. Text shows it as nft(8) would, Apply puts it into
// the kernel in one transaction, Compare says how the kernel differs from it.
package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// A Mode says where the packets that are taken come from.
type Mode string

// The modes.
const (
	// Sidecar takes what is sent in this network namespace: the output hook.
	Sidecar Mode = "sidecar"
	// Gateway takes what comes in from the runners: prerouting, forward, input.
	Gateway Mode = "gateway"
)

// ParseMode reads a mode as a command line has it.
func ParseMode(text string) (Mode, error) {
	switch m := Mode(text); m {
	case Sidecar, Gateway:
		return m, nil
	default:
		return "", fmt.Errorf("%q is no mode; modes are sidecar and gateway", text)
	}
}

// Ports are where packets are taken to, one for each family; 0 closes the
// family. IPv4 and IPv6 may differ, as listeners do.
type Ports struct{ V4, V6 uint16 }

// A Way is the traffic of one pool, or in a sidecar that of the job, and where
// it is taken to.
type Way struct {
	Pool        string
	Interfaces  []string       // gateway: packets that come in here; with Sources, both must hold
	Sources     []netip.Prefix // gateway
	TCP         Ports          // our transparent listener
	DNS         Ports          // our resolver, UDP and TCP
	Explicit    []uint16       // gateway: TCP ports of ours that runners may use as they are: proxy, dns
	PassesOther bool           // audit: other protocols pass after they are logged; metadata and loopback never
}

// An Identity is what our own packets are known by in a sidecar.
type Identity struct {
	UID uint32
	// Cgroup is our own cgroup v2; the zero Cgroup leaves it at the uid.
	Cgroup Cgroup
}

// A Cgroup is one directory of the cgroup v2 hierarchy.
type Cgroup struct {
	ID    uint64 // the inode of its directory; 0 is none
	Level uint32 // its depth, as nft's "socket cgroupv2 level" counts
	Path  string // for people, without the leading slash
}

// A Plan is every rule there is to be. It is a value: nothing changes it.
type Plan struct {
	Mode Mode
	Ways []Way // a sidecar has exactly one
	Own  Identity
	// Private are TCP ports of ours that no job may reach: admin and control.
	Private []uint16
	// Resolvers are loopback addresses of the machine's resolver, such as
	// 127.0.0.11: in a sidecar every port of theirs but the redirected 53 is
	// closed to the job.
	Resolvers []netip.Addr
	// Devices are the interfaces but loopback that a sidecar's second table
	// watches, each of which must exist.
	Devices []string
	// Gateway: whether runners may ask the machine itself for DHCP and NTP.
	DHCP, NTP bool
	// Metadata are the addresses at which clouds hand out credentials; no way
	// lets anything pass to them, not even one in audit.
	Metadata []netip.Addr
	// LogGroup is the nflog group of what is refused.
	LogGroup uint16
}

// Validate says what makes a plan senseless: one that would let everything out,
// or nothing in. Only a valid plan may be applied.
func (p *Plan) Validate() error {
	for _, way := range p.Ways {
		for _, name := range way.Interfaces {
			if err := validDevice(name); err != nil {
				return err
			}
		}
	}
	for _, name := range p.Devices {
		if err := validDevice(name); err != nil {
			return err
		}
	}
	if p.LogGroup == 0 {
		return errors.New("group 0 of nflog belongs to the kernel; choose another")
	}
	switch p.Mode {
	case Sidecar:
		return p.validateSidecar()
	case Gateway:
		return p.validateGateway()
	default:
		_, err := ParseMode(string(p.Mode))
		return err
	}
}

func (p *Plan) validateSidecar() error {
	switch {
	case len(p.Ways) != 1:
		return fmt.Errorf("a sidecar has one way, the job's; this plan has %d", len(p.Ways))
	case len(p.Ways[0].Interfaces)+len(p.Ways[0].Sources) > 0:
		return errors.New("a sidecar takes all that its namespace sends; interfaces and sources are a gateway's")
	case p.Own.UID == 0 || p.Own.UID == noUID:
		return errors.New("a sidecar runs as a user of its own, not as root, which a job may be too; choose one with --uid")
	case p.Own.Cgroup.ID != 0 && (p.Own.Cgroup.Level == 0 || p.Own.Cgroup.Path == ""):
		return errors.New("the root of the cgroups holds the job too; a cgroup that exempts must lie below it")
	}
	return nil
}

func (p *Plan) validateGateway() error {
	if len(p.Ways) == 0 {
		return errors.New("a gateway needs a pool with interfaces or sources")
	}
	for _, way := range p.Ways {
		if len(way.Interfaces)+len(way.Sources) == 0 {
			return fmt.Errorf("pool %q has neither interfaces nor sources, so a gateway cannot tell its packets", way.Pool)
		}
	}
	return nil
}

// validDevice refuses what the kernel takes for no name of an interface
// (dev_valid_name), and what would end a string in nft's grammar.
func validDevice(name string) error {
	if name == "" || len(name) > 15 || name == "lo" || strings.ContainsAny(name, "/:\"*\\ \t\n") {
		return fmt.Errorf("%q cannot be watched as an interface", name)
	}
	return nil
}

// noUID is the user that no process has (uid_t -1).
const noUID = 1<<32 - 1

// DefaultLogGroup is the nflog group that is used unless said otherwise.
const DefaultLogGroup = 3128

// Prefixes of the packets in the nflog group.
const (
	LogRefused = "sallyport refused " // refused: UDP, ICMP, other protocols
	LogPassed  = "sallyport passed "  // let through because the pool is in audit
	LogDNS     = "sallyport dns "     // about to be redirected to our resolver
)

// ErrUnsupported is what Apply, Remove and Compare give where there is no nftables.
var ErrUnsupported = errors.New("nftables needs Linux")

// AllowInput switches on services of the gateway by their names: dhcp, ntp.
func (p *Plan) AllowInput(services []string) error {
	for _, name := range services {
		switch name {
		case "dhcp":
			p.DHCP = true
		case "ntp":
			p.NTP = true
		default:
			return fmt.Errorf("%q is no service that runners may use of a gateway; services are dhcp and ntp", name)
		}
	}
	return nil
}
