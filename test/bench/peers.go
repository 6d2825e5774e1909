//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
)

// otherName is Sallyport of another program, as before a change.
const otherName = "sallyport-other"

// recipes lay each subject out, without starting it.
var recipes map[string]func(*world, *subject) error

func init() {
	recipes = map[string]func(*world, *subject) error{
		"direct": origin, "relay": floor, "echo": echoing,
		"sallyport": func(w *world, s *subject) error { return sallyport(w, s, usualRules, "events.jsonl") },
		otherName: func(w *world, s *subject) error {
			before := *w
			before.binary = w.other
			return sallyport(&before, s, usualRules, "events.jsonl")
		},
		// without an event log
		"sallyport-nolog": func(w *world, s *subject) error { return sallyport(w, s, usualRules, "/dev/null") },
		"sallyport-10":    func(w *world, s *subject) error { return sallyport(w, s, 10, "events.jsonl") },
		"sallyport-many":  func(w *world, s *subject) error { return sallyport(w, s, w.many, "events.jsonl") },
		// has its page open
		"sallyport-page": func(w *world, s *subject) error {
			s.page = s.dir + "/control.sock"
			return sallyport(w, s, usualRules, "events.jsonl")
		},
		// is not reloaded while another is
		"sallyport-steady": func(w *world, s *subject) error { return sallyport(w, s, w.many, "events.jsonl") },
		"squid":            squid, "tinyproxy": tinyproxy, "goproxy": goproxy, "smokescreen": smokescreen,
		"unbound":     func(w *world, s *subject) error { return unbound(w, s, false) },
		"unbound-log": func(w *world, s *subject) error { return unbound(w, s, true) },
		"dnsmasq":     func(w *world, s *subject) error { return dnsmasq(w, s, false) },
		"dnsmasq-log": func(w *world, s *subject) error { return dnsmasq(w, s, true) },
		"coredns":     coredns, "miekg": miekg,
	}
}

// layOut prepares a subject in a directory of its own.
func (w *world) layOut(name string) (*subject, error) {
	recipe, known := recipes[name]
	if !known {
		return nil, fmt.Errorf("no subject is called %q", name)
	}
	dir, err := w.place(name)
	if err != nil {
		return nil, err
	}
	s := &subject{
		name: name, dir: dir, target: jobHost + ":" + port(w.job),
		refused: blockedHost + ":" + port(w.job), web: webHost + ":" + port(w.web),
	}
	return s, recipe(w, s)
}

// installed is the path of a program of the system.
func installed(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/" + name); err != nil {
			return "", fmt.Errorf("%s: %w; as root, .ci/prepare-peers installs it on Debian", name, errMissing)
		}
	}
	return path, nil
}

// versionOf is the first line that a program prints about itself.
func versionOf(path, flag string) string {
	text, _ := exec.Command(path, flag).CombinedOutput()
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	return line
}

// selfServing is a subject that this program is, in another role.
func selfServing(s *subject, args ...string) error {
	self, err := os.Executable()
	s.command = append([]string{self}, args...)
	return err
}

// origin is reached without any subject in between: it is the limit. It is an
// origin of its own, on the subjects' core.
func origin(w *world, s *subject) error {
	s.direct, s.addr, s.web = true, w.addr(), w.addr()
	return selfServing(s, "origin", "-commands", s.addr, "-http", s.web)
}

func floor(w *world, s *subject) error {
	s.addr = w.addr()
	return selfServing(s, "relay", "-listen", s.addr, "-target", w.job)
}

func echoing(w *world, s *subject) error {
	s.direct, s.dns = true, w.addr()
	return selfServing(s, "authority", "-listen", s.dns, "-echo")
}

// sallyport is configured in full: rules, an event log, alerts to a webhook
// and kept in a state directory, ClientHellos judged. Limits that a load from
// one machine would meet are lifted.
func sallyport(w *world, s *subject, rules int, events string) error {
	s.addr, s.dns, s.admin = w.addr(), w.addr(), w.addr()
	s.version = versionOf(w.binary, "version")
	s.command = []string{w.binary, "run", "-c", s.dir + "/sallyport.yaml"}
	if !filepath.IsAbs(events) {
		events = filepath.Join(s.dir, events)
	}
	control := ""
	if s.page != "" {
		control = "unix:" + s.page
	}
	return write(s.dir+"/sallyport.yaml", append([]string{
		fmt.Sprintf("listen: {proxy: %q, dns: %q, admin: %q, control: %q}", s.addr, s.dns, s.admin, control),
		fmt.Sprintf("dns: {upstreams: [\"udp://%s\"], search: []}", w.authority),
		"limits: {connections: 120000, connections_per_client: 60000, dns_per_client: 10000000}",
		fmt.Sprintf("log: {events: %s}", events),
		"alerts:",
		fmt.Sprintf("  state_dir: %s/state", s.dir),
		fmt.Sprintf("  webhook: {url: \"http://%s/\", hmac_secret: not-much-of-a-secret}", w.web),
		"  thresholds: {dns_tunnel_names: 1000000000, dns_tunnel_bytes: 100GB, dns_tunnel_day_bytes: 1TB}",
		"pools:",
		"  default:",
		"    sources: [127.0.0.0/8]",
		"    resolves_to: [127.0.0.0/8, \"::1/128\"]",
		"    allow:",
		fmt.Sprintf("      - {host: %s, ports: [%s], tls: require}", jobHost, port(w.job)),
		fmt.Sprintf("      - {host: %s, ports: [%s]}", webHost, port(w.web)),
		fmt.Sprintf("      - \"*.%s\"", wildZone),
	}, formatted("      - %s", ruleNames(rules))...)...)
}

// squid has its access log. It finds names in a hosts file, as it asks
// resolvers on port 53 only: also those of the load's addresses, which it looks
// for, and which would keep it busy if nobody answered.
func squid(w *world, s *subject) error {
	path, err := installed("squid")
	if err != nil {
		return err
	}
	s.addr, s.version = w.addr(), versionOf(path, "-v")
	names := append(ruleNames(usualRules), jobHost, webHost, "."+wildZone)
	s.command = []string{path, "-N", "-n", fmt.Sprintf("bench%d", os.Getpid()), "-f", s.dir + "/squid.conf"}
	hosts := []string{"127.0.0.1 " + jobHost, "127.0.0.1 " + webHost}
	for i := range sources {
		hosts = append(hosts, fmt.Sprintf("127.1.0.%d client%d.example", i+1, i+1))
	}
	if err := write(s.dir+"/hosts", hosts...); err != nil {
		return err
	}
	if err := write(s.dir+"/allowed", names...); err != nil {
		return err
	}
	return write(s.dir+"/squid.conf", "http_port "+s.addr,
		"acl allowed dstdomain \""+s.dir+"/allowed\"", "http_access allow allowed", "http_access deny all",
		"cache deny all", "cache_mem 8 MB", "access_log stdio:"+s.dir+"/access.log", "cache_log "+s.dir+"/cache.log",
		"pid_filename none", "hosts_file "+s.dir+"/hosts", "dns_nameservers 127.0.0.1", "coredump_dir "+s.dir,
		"shutdown_lifetime 0 seconds", "workers 1", "pinger_enable off", "netdb_filename none", "max_filedescriptors 65536")
}

// tinyproxy has its connections logged. It asks the system's resolver, so its
// target is an address.
func tinyproxy(w *world, s *subject) error {
	path, err := installed("tinyproxy")
	if err != nil {
		return err
	}
	s.addr, s.version, s.target, s.web = w.addr(), versionOf(path, "-v"), "localhost:"+port(w.job), "localhost:"+port(w.web)
	s.command = []string{path, "-d", "-c", s.dir + "/tinyproxy.conf"}
	names := formatted("^%s$", append(ruleNames(usualRules), "localhost"))
	if err := write(s.dir+"/filter", names...); err != nil {
		return err
	}
	return write(s.dir+"/tinyproxy.conf", "Port "+port(s.addr), "Listen 127.0.0.1", "Timeout 600", "MaxClients 100000",
		"LogFile \""+s.dir+"/tinyproxy.log\"", "LogLevel Connect", "Filter \""+s.dir+"/filter\"", "FilterDefaultDeny Yes")
}

// goproxy is a small program around elazarl/goproxy, with a map for a policy,
// without a resolver and without a log.
func goproxy(w *world, s *subject) (err error) {
	program, version, err := w.modules.build("goproxy")
	if err != nil {
		return err
	}
	s.addr, s.version = w.addr(), version
	s.command = []string{program, s.addr, s.dir + "/allowed"}
	return write(s.dir+"/allowed", append(ruleNames(usualRules), jobHost, webHost)...)
}

// smokescreen logs to its output, as it does.
func smokescreen(w *world, s *subject) error {
	program, version, err := w.modules.build("smokescreen")
	if err != nil {
		return err
	}
	s.addr, s.version = w.addr(), version
	s.command = []string{
		program, "--config-file", s.dir + "/config.yaml", "--listen-ip", "127.0.0.1", "--listen-port", port(s.addr),
		"--egress-acl-file", s.dir + "/acl.yaml", "--unsafe-allow-private-ranges", "--allow-range", "127.0.0.0/8",
		"--resolver-address", w.authority, "--statsd-address", w.authority,
	}
	if err := write(s.dir+"/config.yaml", "allow_missing_role: true"); err != nil {
		return err
	}
	allowed := formatted("    - %s", append(ruleNames(usualRules), jobHost, webHost))
	return write(s.dir+"/acl.yaml", append([]string{
		"version: v1", "services: []", "default:", "  project: bench", "  action: enforce", "  allowed_domains:",
	}, allowed...)...)
}

// unbound forwards what is allowed to the authority, and refuses the rest.
func unbound(w *world, s *subject, log bool) error {
	path, err := installed("unbound")
	if err != nil {
		return err
	}
	s.dns, s.version = w.addr(), versionOf(path, "-V")
	s.command = []string{path, "-d", "-c", s.dir + "/unbound.conf"}
	lines := []string{
		"server:", "  interface: 127.0.0.1", "  port: " + port(s.dns), "  access-control: 127.0.0.0/8 allow", "  do-daemonize: no",
		"  username: \"\"", "  chroot: \"\"", "  pidfile: \"\"", "  use-syslog: no", "  logfile: \"" + s.dir + "/unbound.log\"",
		"  module-config: \"iterator\"", "  do-not-query-localhost: no", "  num-threads: 1", "  msg-cache-size: 32m", "  rrset-cache-size: 64m",
		"  local-zone: \".\" always_refuse", "  local-zone: \"" + wildZone + ".\" always_transparent",
	}
	if log {
		lines = append(lines, "  log-queries: yes")
	}
	lines = append(lines, formatted("  local-zone: \"%s.\" always_transparent", ruleNames(usualRules))...)
	return write(s.dir+"/unbound.conf", append(lines,
		"forward-zone:", "  name: \".\"", "  forward-addr: "+strings.Replace(w.authority, ":", "@", 1), "remote-control:", "  control-enable: no")...)
}

// dnsmasq forwards what is allowed to the authority, and refuses the rest.
func dnsmasq(w *world, s *subject, log bool) error {
	path, err := installed("dnsmasq")
	if err != nil {
		return err
	}
	who, err := user.Current()
	if err != nil {
		return err
	}
	s.dns, s.version = w.addr(), versionOf(path, "-v")
	s.command = []string{path, "-k", "-C", s.dir + "/dnsmasq.conf"}
	lines := []string{
		"port=" + port(s.dns), "listen-address=127.0.0.1", "bind-interfaces", "no-resolv", "no-hosts", "cache-size=10000",
		"dns-forward-max=1000", "pid-file", "user=" + who.Username,
	}
	if log {
		lines = append(lines, "log-queries=extra", "log-facility="+s.dir+"/dnsmasq.log")
	}
	names := append(ruleNames(usualRules), wildZone)
	return write(s.dir+"/dnsmasq.conf", append(lines, formatted("server=/%s/"+strings.Replace(w.authority, ":", "#", 1), names)...)...)
}

// coredns has its log on. Its policy is two zones, as it has no list of names.
func coredns(w *world, s *subject) error {
	program, version, err := w.modules.build("coredns")
	if err != nil {
		return err
	}
	s.dns, s.version = w.addr(), version
	s.command = []string{program, "-conf", s.dir + "/Corefile"}
	at := ":" + port(s.dns)
	return write(s.dir+"/Corefile",
		"allowed.example"+at+" "+wildZone+at+" {", "  bind 127.0.0.1", "  log", "  cache 300", "  forward . "+w.authority, "}",
		"."+at+" {", "  bind 127.0.0.1", "  log", "  template ANY ANY {", "    rcode NXDOMAIN", "  }", "}")
}

// miekg is a small program around miekg/dns, with a map for policy and cache,
// without a log.
func miekg(w *world, s *subject) error {
	program, version, err := w.modules.build("miekg")
	if err != nil {
		return err
	}
	s.dns, s.version = w.addr(), version
	s.command = []string{program, s.dns, w.authority, s.dir + "/allowed", wildZone}
	return write(s.dir+"/allowed", ruleNames(usualRules)...)
}
