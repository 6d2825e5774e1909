package dnsfilter

import (
	"slices"
	"strings"
	"testing"
)

func TestUpstreamForms(t *testing.T) {
	for text, name := range map[string]string{
		"10.0.0.2":                           "10.0.0.2:53",
		"10.0.0.2:5353":                      "10.0.0.2:5353",
		"fd00::2":                            "[fd00::2]:53",
		"[fd00::2]":                          "[fd00::2]:53",
		"[fd00::2]:5353":                     "[fd00::2]:5353",
		"::ffff:10.0.0.2":                    "10.0.0.2:53",
		"fe80::1%eth0":                       "[fe80::1%eth0]:53",
		"udp://10.0.0.2":                     "10.0.0.2:53",
		"tcp://[fd00::2]:54":                 "tcp://[fd00::2]:54",
		"tls://10.0.0.2":                     "tls://10.0.0.2:853",
		"tls://10.0.0.2:8853#DNS.Example":    "tls://10.0.0.2:8853#dns.example",
		"https://10.0.0.2/dns-query":         "https://10.0.0.2",
		"https://[fd00::2]:8443/secret?t=x":  "https://[fd00::2]:8443",
		"https://DNS.Example:8443/dns-query": "https://dns.example:8443",
		"https://dns.example:443/x":          "https://dns.example",
	} {
		spec, err := parseUpstream(text)
		if err != nil || spec.name() != name {
			t.Errorf("%s: got %q, %v, want %q", text, spec.name(), err, name)
		}
		if err := CheckUpstreams([]string{text, "system"}); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestUpstreamKeys tells two paths of one DoH host apart, and prints no URL where
// there is none: fmt would recover from a fault of memory at each start.
func TestUpstreamKeys(t *testing.T) {
	specs, _, err := parseUpstreams([]string{"10.0.0.2", "tls://10.0.0.2#a.example", "https://10.0.0.2/a", "https://10.0.0.2/b"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, spec := range specs {
		got = append(got, spec.key())
	}
	want := []string{"10.0.0.2:53", "tls://10.0.0.2:853#a.example", "https://10.0.0.2 https://10.0.0.2/a", "https://10.0.0.2 https://10.0.0.2/b"}
	if !slices.Equal(got, want) {
		t.Errorf("the keys are %q, want %q", got, want)
	}
}

func TestUpstreamErrorsSayHowToMendThem(t *testing.T) {
	for text, want := range map[string]string{
		"":                                    "write the server's address",
		"dns.example":                         "write the server's address",
		"dns.example:53":                      "write the server's address",
		"10.0.0.2:":                           "ports are 1 to 65535",
		"10.0.0.2:0":                          "ports are 1 to 65535",
		"10.0.0.2:70000":                      "ports are 1 to 65535",
		"10.0.0.2:+53":                        "ports are 1 to 65535",
		"[10.0.0.2]":                          "write the server's address",
		"0.0.0.0":                             "nobody answers",
		"tcp://224.0.0.251":                   "nobody answers",
		"tls://dns.example":                   "such as 10.0.0.2, 10.0.0.2:853",
		"tls://10.0.0.2#":                     "name of the server's certificate",
		"tls://10.0.0.2#not a name":           "name of the server's certificate",
		"quic://10.0.0.2":                     "legal are udp, tcp, tls and https",
		"http://10.0.0.2/dns-query":           "legal are udp, tcp, tls and https",
		"https://":                            "write https://HOST/PATH",
		"https://bad_host%41/dns":             "write https://HOST/PATH",
		"https://user:secret@10.0.0.2/":       "neither a user",
		"https://10.0.0.2/secret#f":           "neither a user",
		"https://10.0.0.2:99999/secret":       "ports are 1 to 65535",
		"https://0.0.0.0/secret":              "nobody answers",
		"https://dns.example/dns-query{?dns}": "write https://HOST/PATH",
		"https://10.0.0.2.:80 /secret":        "write https://HOST/PATH",
	} {
		err := CheckUpstreams([]string{"system", text})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want it to say %q", text, err, want)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error shows the secret: %v", text, err)
		}
	}
	for want, list := range map[string][]string{
		"nobody to ask for its address": {"https://dns.example/dns-query"},
		"listed twice":                  {"system", "system"},
		"at most 16":                    strings.Fields(strings.Repeat("10.0.0.2 ", 17)),
		"no upstream is listed":         {},
	} {
		if err := CheckUpstreams(list); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want it to say %q", list, err, want)
		}
	}
}
