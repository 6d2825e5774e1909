package test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// controlRow is a row of the table in docs/control.md.
var controlRow = regexp.MustCompile("(?m)^\\| `([a-z_.\\[\\]]+)` \\| (always|[a-z ]+) \\| ([^|]+) \\| [^|]+ \\|$")

// control gets a path of the control API, over its socket.
func (d *daemon) control(path string) (int, []byte) {
	d.t.Helper()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", d.path("control.sock"))
	}}}
	resp, err := client.Get("http://localhost" + path)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	var body json.RawMessage
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil && resp.StatusCode == http.StatusOK {
		d.t.Fatalf("%s: %v", path, err)
	}
	return resp.StatusCode, body
}

// flatten lists the fields of an answer with their values: "pools[].name".
func flatten(at string, value any, out map[string][]any) {
	switch v := value.(type) {
	case map[string]any:
		for key, inner := range v {
			flatten(strings.TrimPrefix(at+"."+key, "."), inner, out)
		}
	case []any:
		if len(v) > 0 {
			if _, objects := v[0].(map[string]any); objects {
				for _, inner := range v {
					flatten(at+"[]", inner, out)
				}
				return
			}
		}
		out[at] = append(out[at], v)
	default:
		out[at] = append(out[at], v)
	}
}

// fits reports whether a value is of a type that docs/control.md names.
func fits(kind string, value any) bool {
	if list, ok := value.([]any); ok {
		return strings.HasPrefix(kind, "list of ") && !slices.ContainsFunc(list, func(item any) bool { _, ok := item.(string); return !ok })
	}
	switch kind {
	case "text":
		_, ok := value.(string)
		return ok
	case "number":
		_, ok := value.(float64)
		return ok
	case "true or false":
		_, ok := value.(bool)
		return ok
	case "time":
		text, _ := value.(string)
		when, err := time.Parse(time.RFC3339, text)
		return err == nil && when.Year() > 2000 && strings.HasSuffix(text, "Z")
	default:
		return false
	}
}

// TestControlStatus holds docs/control.md against answers, both ways: of a
// daemon that has just begun, and of one whose upstream is down.
func TestControlStatus(t *testing.T) {
	d := start(t, config{upstream: "127.0.0.1:1", pools: "  build: {sources: [127.0.0.0/8], allow: [registry.corp.example]}\n  bare: {allow: [a.example]}\n"})
	got := make(map[string][]any)
	read := func() {
		code, body := d.control("/api/v1/status")
		var answer any
		if err := json.Unmarshal(body, &answer); code != 200 || err != nil {
			t.Fatalf("%d %v: %s", code, err, body)
		}
		flatten("", answer, got)
	}
	read()
	before := len(got["upstreams[].retry"])
	if before != 0 {
		t.Errorf("an upstream that was never asked is asked again at %v", got["upstreams[].retry"])
	}
	connect(t, d.proxy, "registry.corp.example:443")
	d.granted("mirror.example", "1h")
	read()

	document, _, _ := strings.Cut(readText(t, "../docs/control.md"), "## GET /api/v1/decisions")
	rows := controlRow.FindAllStringSubmatch(document, -1)
	documented := make(map[string]bool)
	for _, row := range rows {
		name, always, kind := row[1], row[2] == "always", row[3]
		documented[name] = true
		if always && len(got[name]) == 0 {
			t.Errorf("%s is documented and not there", name)
		}
		for _, value := range got[name] {
			if !fits(kind, value) {
				t.Errorf("%s is %v, documented is %s", name, value, kind)
			}
		}
	}
	for name := range got {
		if !documented[name] {
			t.Errorf("%s is there and not documented", name)
		}
	}
	for _, name := range []string{"upstreams[].retry", "upstreams[].last_error"} {
		if len(got[name]) == 0 {
			t.Errorf("an upstream that is down has no %s", name)
		}
	}
	if len(rows) < 25 {
		t.Errorf("docs/control.md has only %d rows", len(rows))
	}
}

// TestControlDecisions: an id gives its events as the log has them, another 404.
func TestControlDecisions(t *testing.T) {
	d := start(t, config{upstream: "127.0.0.1:1", pools: "  build: {sources: [127.0.0.0/8], allow: [registry.corp.example]}\n"})
	id := connect(t, d.proxy, "evil.example:443").header.Get("Sallyport-Id")
	code, body := d.control("/api/v1/decisions/" + id)
	var events []json.RawMessage
	if err := json.Unmarshal(body, &events); code != 200 || err != nil || len(events) != 1 {
		t.Fatalf("%d %v: %s", code, err, body)
	}
	log, err := os.ReadFile(d.path("events.jsonl"))
	if err != nil || !strings.Contains(string(log), string(events[0])+"\n") {
		t.Errorf("the answer is no line of the log: %s (%v)", events[0], err)
	}
	if code, _ := d.control("/api/v1/decisions/aaaaaaaaaaaa"); code != 404 {
		t.Errorf("an unknown id: %d", code)
	}
}

// TestControlToken: over TCP each request shows the token, and a start with a
// short one fails.
func TestControlToken(t *testing.T) {
	d := prepare(t, config{})
	address := d.ip + ":9181"
	d.listen = fmt.Sprintf("{proxy: %q, dns: %q, admin: %q, control: %q}", d.proxy, d.dns, d.admin, address)
	d.extra = "admin: {token_file: " + d.path("token") + "}\n"
	d.write("127.0.0.1:1", "  build: {sources: [127.0.0.0/8], allow: [registry.corp.example]}\n")
	token := func(text string) {
		if err := os.WriteFile(d.path("token"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	token("0123456789abcde\n")
	if got := command(t, d.dir, "run", "-c", "sallyport.yaml"); got.code != 2 || !strings.Contains(got.stderr, "admin.token_file holds less than 16 characters") {
		t.Errorf("a short token: exit code %d, %s", got.code, got.stderr)
	}
	token("0123456789abcdef\n")
	d.run()
	for sent, want := range map[string]int{"": 401, "Bearer 0123456789abcde": 401, "Bearer 0123456789abcdef": 200} {
		req, err := http.NewRequest(http.MethodGet, "http://"+address+"/api/v1/status", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", sent)
		resp, err := (&http.Client{Timeout: patience}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("with %q: %s, want %d", sent, resp.Status, want)
		}
	}
	if got := command(t, d.dir, "explain", "--control", address, "k3v9x2m4p7qa"); got.code != 1 || !strings.Contains(got.stderr, "wants the token of its admin.token_file; name its configuration by -c") {
		t.Errorf("explain without the token: exit code %d, %s", got.code, got.stderr)
	}
}
