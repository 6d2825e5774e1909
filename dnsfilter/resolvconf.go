package dnsfilter

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
)

// Bounds on what is taken from resolv.conf(5); more than glibc reads (3 and 6
// before version 2.26).
const (
	maxResolvConf    = 64 << 10 // bytes
	maxSystemServers = 8
	maxSystemSearch  = 32
	dnsPort          = 53
)

// resolvConf is what we use of a resolv.conf(5).
type resolvConf struct {
	servers []netip.AddrPort // in order, zones kept
	search  []string         // as written, without the final dot; "." is left out
	bad     []string         // nameserver values that are no addresses
}

// readResolvConf reads the file; an empty path is the system's.
func readResolvConf(path string) (resolvConf, error) {
	if path == "" {
		path = resolvConfSystem
	}
	file, err := os.Open(path)
	if err != nil {
		return resolvConf{}, fmt.Errorf("reading the system's resolvers: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxResolvConf+1))
	if err != nil {
		return resolvConf{}, fmt.Errorf("reading the system's resolvers: %w", err)
	}
	if len(text) > maxResolvConf {
		return resolvConf{}, fmt.Errorf("reading the system's resolvers: %s is longer than %d bytes", path, maxResolvConf)
	}
	return parseResolvConf(string(text)), nil
}

// parseResolvConf follows glibc: unknown lines are skipped, the last search or
// domain line wins, and a comment begins a line.
func parseResolvConf(text string) resolvConf {
	var conf resolvConf
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			addr, err := netip.ParseAddr(fields[1])
			if err != nil {
				conf.bad = append(conf.bad, fields[1])
			} else if len(conf.servers) < maxSystemServers {
				conf.servers = append(conf.servers, netip.AddrPortFrom(addr.Unmap(), dnsPort))
			}
		case "search":
			conf.search = searchSuffixes(fields[1:])
		case "domain":
			conf.search = searchSuffixes(fields[1:2])
		}
	}
	return conf
}

// searchSuffixes drops the root and final dots, and what is beyond the bound.
func searchSuffixes(fields []string) []string {
	var suffixes []string
	for _, field := range fields {
		if suffix := strings.TrimSuffix(field, "."); suffix != "" && len(suffixes) < maxSystemSearch {
			suffixes = append(suffixes, suffix)
		}
	}
	return suffixes
}

// SystemNameservers returns the nameservers of a resolv.conf(5), unmapped and
// without zones; an empty path is /etc/resolv.conf. A file that cannot be read
// is an error.
func SystemNameservers(path string) ([]netip.Addr, error) {
	conf, err := readResolvConf(path)
	var addrs []netip.Addr
	for _, server := range conf.servers {
		addrs = append(addrs, server.Addr().WithZone(""))
	}
	return addrs, err
}

// SystemSearch returns the search suffixes of a resolv.conf(5) as written there,
// without final dots; an empty path is /etc/resolv.conf. The names are not
// checked. A file that cannot be read is an error.
func SystemSearch(path string) ([]string, error) {
	conf, err := readResolvConf(path)
	return conf.search, err
}
