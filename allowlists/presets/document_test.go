package presets_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"sallyport/allowlists/presets"
)

var update = flag.Bool("update", false, "write docs/presets.md anew")

// preface opens docs/presets.md.
const preface = `# Presets

Built-in allowlists, each line with its source. ` + "`sallyport presets NAME`" + ` prints one in full. Where a name stands without a port it is 443.

- (W): anyone can write data there with an account of their own, so allowing it permits exfiltration. Where the jobs can do
  without, put it under ` + "`deny`" + `, which beats every preset.
- (?): general knowledge, not yet held against a source. The other lines carry the day somebody did so.
- Parameters are given where the preset is used, each one label of a host name:
  ` + "`{preset: ecr, region: eu-west-1, account: \"123456789012\"}`" + `. Without them the hosts that need one are left out, with a warning.
- ` + "`${NAME}`" + ` is a variable of Sallyport's environment, which must be set where the preset is used.
- ` + "`quiet-`" + ` presets allow nothing: what they name is refused without a ` + "`denied-egress`" + ` alert.

A GitLab or GitHub server of your own is a rule of your own: its runners tell the hosts in variables such as
` + "`CI_SERVER_URL` and `ACTIONS_RESULTS_URL`" + `.

Hosts come and go: ` + "`sallyport presets verify`" + ` resolves each, connects, checks its certificate and follows where it redirects to, and tells those that are
dead, forged or moved since an earlier run (` + "`--against`" + `). Some presets name downloads, too: ` + "`verify`" + ` asks each for its first byte and follows its redirects. One to
a host that the preset does not have is told with the line that it takes. It needs the internet, and says so where there is none.

This page is written by ` + "`go test ./allowlists/presets -update`" + `.

| preset | what for | hosts |
|---|---|---|
`

func TestDocumentIsCurrent(t *testing.T) {
	var b strings.Builder
	b.WriteString(preface)
	for _, name := range presets.Names() {
		b.WriteString(line(read(t, name)))
	}
	b.WriteString(downloadSection(t))
	b.WriteString(quietSection(t))
	const path = "../../docs/presets.md"
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(path); err != nil || string(have) != b.String() {
		t.Errorf("docs/presets.md is not current (%v); run go test ./allowlists/presets -update", err)
	}
}

// downloadSection lists what presets verify downloads.
func downloadSection(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("\n## Downloads that are looked at\n\nA preset's file names them under `downloads`, each with its source. They allow nothing.\n\n| preset | download |\n|---|---|\n")
	for _, name := range presets.Names() {
		for _, d := range read(t, name).Downloads {
			fmt.Fprintf(&b, "| %s | `%s` |\n", name, d.URL)
		}
	}
	return b.String()
}

// line is the row of one preset in the table.
func line(l list) string {
	var hosts []string
	for _, e := range l.Hosts {
		text := "`" + e.Host + "`"
		if e.CIDR != "" {
			text = "cidr `" + e.CIDR + "`"
		}
		if len(e.Ports) > 0 {
			text += " port `" + strings.Join(e.Ports, "`, `") + "`"
		}
		if e.Writable {
			text += " (W)"
		}
		if e.Verified == "unverified" {
			text += " (?)"
		}
		hosts = append(hosts, text)
	}
	for _, q := range l.Quiet {
		hosts = append(hosts, "quiet: `"+q+"`")
	}
	what := l.Description
	if len(l.Params) > 0 {
		what += " Parameters: `" + strings.Join(l.Params, "`, `") + "`."
	}
	return fmt.Sprintf("| %s | %s | %s |\n", l.Name, what, strings.Join(hosts, ", "))
}
