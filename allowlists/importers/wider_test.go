package importers_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sallyport/allowlists/importers"
)

// A world makes random sources of one format, and says of a target what the
// documents of that format do, as simply as it can be said.
type world struct {
	format string
	// make writes a source, and gives its meaning.
	make func(r *rand.Rand) (text string, means func(host string, port int) bool)
	// exact says that ours means the same where nothing was left out or told.
	exact bool
}

// names are what the rules of worlds are about.
var names = []string{"a.example", "b.example", "x.a.example", "y.a.example", "z.x.a.example", "x1.a.example", "x-.a.example", "c.b.example", "bad.c.b.example", "93.184.216.34"}

func pick[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

// some gives one to six of a list.
func some(r *rand.Rand, list []string) []string {
	out := make([]string, 1+r.IntN(6))
	for i := range out {
		out[i] = pick(r, list)
	}
	return out
}

// glob matches as a * that stands for anything at all.
func glob(pattern, host string) bool {
	expression := "^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*") + "$"
	return regexp.MustCompile(expression).MatchString(host)
}

var worlds = []world{
	{format: "harden-runner", make: func(r *rand.Rand) (string, func(string, int) bool) {
		list := some(r, []string{"a.example", "*.a.example:443", "b.example:80", "x*.a.example", "x.a.example:22", "*.b.example:80", "*.b.example:443"})
		return strings.Join(list, " "), func(host string, port int) bool {
			seen := map[string]bool{}
			return slices.ContainsFunc(list, func(item string) bool {
				name, p, ported := strings.Cut(item, ":")
				if !ported {
					p = "443"
				}
				again := seen[name] && strings.Contains(name, "*")
				seen[name] = true
				return !again && p == fmt.Sprint(port) && glob(name, host)
			})
		}
	}},
	{format: "smokescreen", exact: true, make: func(r *rand.Rand) (string, func(string, int) bool) {
		all := []string{"a.example", "*.a.example", "x.a.example", "b.example", "*.b.example", "*.x.a.example", "c.b.example", "bad.c.b.example"}
		own, globalAllow, globalDeny := some(r, all), some(r, all), some(r, all)
		text := fmt.Sprintf("version: v1\nservices:\n  - {name: imported, action: enforce, allowed_domains: [%s]}\nglobal_allow_list: [%s]\nglobal_deny_list: [%s]\n", quoted(own), quoted(globalAllow), quoted(globalDeny))
		return text, func(host string, _ int) bool {
			in := func(list []string) bool {
				return slices.ContainsFunc(list, func(item string) bool { return glob(item, host) })
			}
			return in(own) || !in(globalDeny) && in(globalAllow)
		}
	}},
	{format: "gh-aw", exact: true, make: func(r *rand.Rand) (string, func(string, int) bool) {
		all := []string{"a.example", "*.a.example", "https://x.a.example", "http://b.example", "https://*.b.example", "c.b.example", "x*.a.example"}
		allowed, blocked := some(r, all), some(r, all[:6])
		return fmt.Sprintf("network:\n  allowed: [%s]\n  blocked: [%s]\n", quoted(allowed), quoted(blocked)), func(host string, port int) bool {
			in := func(list []string) bool {
				return slices.ContainsFunc(list, func(item string) bool {
					scheme, name, found := strings.Cut(item, "://")
					if !found {
						scheme, name = "", item
					}
					if scheme != "https" && port == 80 || scheme != "http" && port == 443 {
						return glob(name, host) || !strings.Contains(name, "*") && strings.HasSuffix(host, "."+name)
					}
					return false
				})
			}
			return in(allowed) && !in(blocked)
		}
	}},
	{format: "iron-proxy", make: func(r *rand.Rand) (string, func(string, int) bool) {
		list := some(r, []string{"a.example", "*.a.example", "x*.a.example", "x?.a.example", "b.example", "*.c.b.example", "X.a.example"})
		return fmt.Sprintf("domains: [%s]\n", quoted(list)), func(host string, _ int) bool {
			return slices.ContainsFunc(list, func(item string) bool {
				if base, tree := strings.CutPrefix(item, "*."); tree {
					return host == base || strings.HasSuffix(host, "."+base)
				}
				matched, _ := path.Match(item, host)
				return matched
			})
		}
	}},
	{format: "cargowall", make: cargowallWorld},
	{format: "squid", make: squidWorld},
}

func quoted(list []string) string { return `"` + strings.Join(list, `", "`) + `"` }

// cargowallWorld makes rules that refuse and allow, some with ports.
func cargowallWorld(r *rand.Rand) (string, func(string, int) bool) {
	type rule struct {
		value, action string
		ports         []int
	}
	var rules []rule
	var rows []string
	for _, value := range some(r, []string{"a.example", "x.a.example", "**.a.example", "*.a.example", "b.example", "c.b.example", "**.b.example", "x.*.example", "c.**.example", "bad.c.b.example"}) {
		x := rule{value, pick(r, []string{"allow", "allow", "deny"}), pick(r, [][]int{nil, {443}, {22, 443}})}
		if slices.ContainsFunc(rules, func(y rule) bool { return y.value == x.value }) {
			continue
		}
		var ports []string
		for _, p := range x.ports {
			ports = append(ports, fmt.Sprintf(`{"port": %d, "protocol": "tcp"}`, p))
		}
		rules = append(rules, x)
		rows = append(rows, fmt.Sprintf(`{"type": "hostname", "value": %q, "action": %q, "ports": [%s]}`, x.value, x.action, strings.Join(ports, ", ")))
	}
	return `{"defaultAction": "deny", "rules": [` + strings.Join(rows, ",\n") + `]}`, func(host string, port int) bool {
		var exact, parent, denied, allowed *rule
		for i := range rules {
			x := &rules[i]
			rest := strings.TrimPrefix(x.value, "**.")
			single := strings.TrimPrefix(x.value, "*.")
			odd := x.value == "x.*.example" && glob("x.*.example", host) && strings.Count(host, ".") == 2 || x.value == "c.**.example" && glob(`c.*.example`, host)
			matches := odd || rest != x.value && strings.HasSuffix(host, "."+rest) || single != x.value && strings.HasSuffix(host, "."+single) && strings.Count(host, ".") == strings.Count(single, ".")+1
			switch {
			case x.value == host:
				exact = x
			case !strings.Contains(x.value, "*") && strings.HasSuffix(host, "."+x.value) && (parent == nil || len(x.value) > len(parent.value)):
				parent = x
			case matches && x.action == "deny" && denied == nil:
				denied = x
			case matches && x.action == "allow" && allowed == nil:
				allowed = x
			}
		}
		for _, x := range []*rule{exact, denied, parent, allowed} {
			if x != nil {
				return x.action == "allow" && (x.ports == nil || slices.Contains(x.ports, port))
			}
		}
		return false
	}
}

// squidWorld makes a squid.conf of a few acls and lines.
func squidWorld(r *rand.Rand) (string, func(string, int) bool) {
	acls := map[string][]string{}
	var text strings.Builder
	for _, name := range []string{"s1", "s2", "s3"} {
		list := some(r, []string{"a.example", ".a.example", "x.a.example", ".x.a.example", "b.example", ".b.example", ".c.b.example", "93.184.216.34"})
		acls[name] = list
		fmt.Fprintf(&text, "acl %s dstdomain %s\n", name, strings.Join(list, " "))
	}
	text.WriteString("acl web port 80 443\nacl tls port 443\nacl night time 00:00-06:00\nacl re dstdom_regex ^x[0-9]\n")
	var lines [][]string
	for range 1 + r.IntN(6) {
		line := []string{pick(r, []string{"allow", "deny"})}
		for range 1 + r.IntN(2) {
			line = append(line, pick(r, []string{"s1", "s2", "s3", "!s1", "!s2", "web", "!web", "tls", "!tls", "CONNECT", "!CONNECT", "all", "night", "re"}))
		}
		lines = append(lines, line)
		text.WriteString("http_access " + strings.Join(line, " ") + "\n")
	}
	lines = append(lines, []string{"deny", "all"})
	text.WriteString("http_access deny all\n")
	holds := func(term, host string, port int, connect bool) bool {
		name, not := strings.CutPrefix(term, "!")
		var yes bool
		switch name {
		case "all":
			yes = true
		case "web":
			yes = port == 80 || port == 443
		case "tls":
			yes = port == 443
		case "CONNECT":
			yes = connect
		case "night":
			yes = false // by day
		case "re":
			yes = len(host) > 1 && host[0] == 'x' && host[1] >= '0' && host[1] <= '9'
		default:
			yes = slices.ContainsFunc(acls[name], func(v string) bool {
				return v == host || strings.HasPrefix(v, ".") && (host == v[1:] || strings.HasSuffix(host, v))
			})
		}
		return yes != not
	}
	return text.String(), func(host string, port int) bool {
		by := func(connect bool) bool {
			for _, line := range lines {
				if !slices.ContainsFunc(line[1:], func(term string) bool { return !holds(term, host, port, connect) }) {
					return line[0] == "allow"
				}
			}
			return false
		}
		return by(true) || port == 80 && by(false) // a tunnel carries plain HTTP, too
	}
}

// rounds is how many sources of each format TestNeverWider makes.
const rounds = 50

// TestNeverWider: over random sources, what the imported policy allows the
// source allows; and where nothing is told, what the source allows it does.
func TestNeverWider(t *testing.T) {
	for _, w := range worlds {
		t.Run(w.format, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(1, 2))
			allowed, kept := 0, 0
			for range rounds {
				text, means := w.make(r)
				result, err := importers.Import(w.format, "f", []byte(text), importers.Options{})
				if err != nil {
					t.Fatalf("%v\n%s", err, text)
				}
				policy := policyOf(t, result)
				loss := slices.ContainsFunc(tell(result), func(note string) bool { return !strings.Contains(note, " same ") })
				for _, host := range names {
					if _, err := netip.ParseAddr(host); err == nil && w.format != "squid" {
						continue
					}
					for _, port := range []int{22, 80, 443} {
						have, want := allows(t, policy, "imported", fmt.Sprint(host, ":", port)), means(host, port)
						if have && !want {
							t.Fatalf("%s:%d is allowed, and was not\n%s\n%s", host, port, text, result.YAML)
						}
						if want && !have && !loss {
							t.Fatalf("%s:%d is refused, and was not; nothing is told of it\n%s\n%s", host, port, text, result.YAML)
						}
						if want {
							allowed++
							if have {
								kept++
							}
						}
					}
				}
			}
			if kept == 0 || w.exact && kept*10 < allowed*8 {
				t.Errorf("only %d of %d allowed targets are kept", kept, allowed)
			}
			t.Logf("%d of %d allowed targets kept", kept, allowed)
		})
	}
}
