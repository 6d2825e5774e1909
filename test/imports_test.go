package test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// rooms says which packages of ours each package may import. What a package
// may import its parts may too; nothing imports cmd or test.
var rooms = map[string][]string{
	"sallyport/allowlists/diag":      {},
	"sallyport/allowlists/presets":   {},
	"sallyport/allowlists":           {"sallyport/allowlists/diag", "sallyport/allowlists/presets"},
	"sallyport/allowlists/importers": {"sallyport/allowlists", "sallyport/allowlists/diag"},
	"sallyport/dnsfilter":            {"sallyport/allowlists"},
	"sallyport/proxy":                {"sallyport/allowlists"},
	"sallyport/proxy/firewall":       {},
	"sallyport/alerting":             {"sallyport/proxy", "sallyport/dnsfilter", "sallyport/allowlists"},
	"sallyport/alerting/eventtest":   {"sallyport/alerting"},
	"sallyport/alerting/foreignlog":  {},
	"sallyport/alerting/hindsight":   {"sallyport/alerting", "sallyport/alerting/foreignlog", "sallyport/dnsfilter", "sallyport/allowlists"},
	"sallyport/alerting/replay":      {"sallyport/alerting", "sallyport/alerting/foreignlog", "sallyport/dnsfilter", "sallyport/allowlists"},
	"sallyport/alerting/report":      {"sallyport/alerting", "sallyport/alerting/foreignlog", "sallyport/alerting/replay", "sallyport/allowlists"},
	"sallyport/alerting/suggest":     {"sallyport/alerting", "sallyport/alerting/foreignlog", "sallyport/alerting/replay", "sallyport/allowlists"},
	"sallyport/alerting/webui":       {"sallyport/alerting", "sallyport/allowlists"},
	"sallyport/dnsfilter/dnstest":    {},
	"sallyport/cmd/sallyport": {
		"sallyport/alerting", "sallyport/alerting/foreignlog", "sallyport/alerting/hindsight", "sallyport/alerting/replay", "sallyport/alerting/report", "sallyport/alerting/suggest", "sallyport/alerting/webui",
		"sallyport/proxy", "sallyport/proxy/firewall", "sallyport/dnsfilter", "sallyport/allowlists",
		"sallyport/allowlists/diag", "sallyport/allowlists/importers", "sallyport/allowlists/presets",
	},
	"sallyport/test":         {},
	"sallyport/test/standin": {},
	"sallyport/test/bench":   {}, // sees the daemon as any client does
}

// libraries keeps each library at its one edge.
var libraries = map[string][]string{
	"github.com/elazarl/goproxy":                              {"sallyport/proxy"},
	"github.com/google/nftables/expr":                         {"sallyport/proxy/firewall"},
	"github.com/miekg/dns":                                    {"sallyport/dnsfilter", "sallyport/dnsfilter/dnstest"},
	"gopkg.in/yaml.v3":                                        {"sallyport/allowlists/diag"},
	"github.com/prometheus/alertmanager/api/v2/models":        {}, // tests only: it brings the whole of OpenAPI
	"github.com/rogpeppe/go-internal/testscript":              {}, // tests only
	"github.com/leodido/go-syslog/v4/rfc5424":                 {"sallyport/alerting"},
	"github.com/spf13/cobra":                                  {"sallyport/cmd/sallyport"},
	"github.com/mattn/go-isatty":                              {"sallyport/cmd/sallyport"},
	"github.com/fsnotify/fsnotify":                            {"sallyport/cmd/sallyport"},
	"github.com/KimMachineGun/automemlimit/memlimit":          {"sallyport/cmd/sallyport"},
	"github.com/elastic/go-seccomp-bpf":                       {"sallyport/cmd/sallyport"},
	"github.com/landlock-lsm/go-landlock/landlock":            {"sallyport/cmd/sallyport"},
	"kernel.org/pub/linux/libs/security/libcap/cap":           {"sallyport/cmd/sallyport"},
	"github.com/yuin/goldmark":                                {}, // tests only: it reads our Markdown as GitHub does
	"golang.org/x/net/publicsuffix":                           {"sallyport/allowlists", "sallyport/alerting", "sallyport/dnsfilter", "sallyport/cmd/sallyport"},
	"net/http/pprof":                                          {"sallyport/cmd/sallyport"},
	"expvar":                                                  {},
	"github.com/rs/zerolog/log":                               {},
	"github.com/prometheus/client_golang/prometheus/promauto": {},
}

func TestImportsRunOneWay(t *testing.T) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "sallyport/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; seen++ {
		var pkg struct {
			ImportPath string
			Imports    []string
		}
		if err := decoder.Decode(&pkg); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		allowed, known := rooms[pkg.ImportPath]
		if !known {
			t.Errorf("%s is a new room; say here what it may import", pkg.ImportPath)
		}
		for _, path := range pkg.Imports {
			if strings.HasPrefix(path, "sallyport/") && !contains(allowed, path) {
				t.Errorf("%s imports %s, which is not below it", pkg.ImportPath, path)
			}
			if users, guarded := libraries[path]; guarded && !contains(users, pkg.ImportPath) {
				t.Errorf("%s imports %s, which belongs to %v", pkg.ImportPath, path, users)
			}
		}
	}
	if seen < 8 {
		t.Errorf("only %d packages were looked at", seen)
	}
}

func contains(list []string, want string) bool {
	for _, item := range list {
		if item == want {
			return true
		}
	}
	return false
}
