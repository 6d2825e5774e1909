package test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// pageLink runs sallyport page until the test ends, and returns the link that it prints.
func pageLink(t *testing.T, d *daemon) string {
	t.Helper()
	cmd := exec.Command(binary, "page", "-c", d.path("sallyport.yaml"), "--listen", d.neighbour(9)+":0")
	out, stderr := &lockedBuffer{}, &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = out, stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGINT)
		if err := cmd.Wait(); err != nil || strings.Contains(stderr.String(), "DATA RACE") {
			t.Errorf("sallyport page: %v\n%s", err, stderr)
		}
	})
	eventually(t, "a link to the page", func() bool { return strings.Contains(out.String(), "\n") }, stderr.String)
	return strings.TrimSpace(out.String())
}

// pagePools are those of a daemon whose page is looked at.
const pagePools = `  build:
    sources: [127.0.0.0/8]
    presets: [npm]
    allow:
      - registry.corp.example
      - {host: git.corp.example, ports: [22, 443], owner: platform@corp.example, reason: "deploy keys", expires: 2037-03-01}
    deny: [gist.github.com]
  release: {mode: audit, sources: [192.0.2.0/24], allow: [registry.corp.example]}
`

// TestPage drives the page in a browser: rows come by themselves, the filter works,
// what would allow a destination is said, and what a job sends is text.
func TestPage(t *testing.T) {
	d := start(t, config{upstream: "127.0.0.1:1", pools: pagePools})
	b := openBrowser(t)
	const evil = "<img/src=x/onerror=alert`1`><script>alert`2`</script>"
	dialogs := make(chan string, 8)
	if err := chromedp.Listen(b.ctx, func(ev any) {
		if dialog, ok := ev.(*cdppage.EventJavascriptDialogOpening); ok {
			dialogs <- dialog.Message
		}
	}); err != nil {
		t.Fatal(err)
	}
	link := pageLink(t, d)
	base := link[:strings.Index(link, "/sign-in/")]
	b.look(1600, "light")
	b.do(chromedp.Navigate(link))
	b.until(`document.querySelector("#live")?.textContent.startsWith("Live")`)

	connect(t, d.proxy, "evil.example:8443")
	took := b.until(`document.querySelector("#rows tr td.what")?.textContent === "evil.example:8443"`)
	t.Logf("a refusal is on the page after %s", took.Round(time.Millisecond))
	for range 3 {
		connect(t, d.proxy, "telemetry.vendor.example:443")
	}
	connect(t, d.proxy, "gist.github.com:443")
	connect(t, d.proxy, "registry.corp.example:443")
	ask(t, d.dns, evil+".example.", 1)
	b.until(`document.querySelectorAll("#rows tr").length >= 7`)
	b.notMarkup(dialogs)
	if got := eval[string](b, `[...document.querySelectorAll("#rows tr td.what")].map(e => e.textContent).find(t => t.includes("img"))`); got != evil+".example" {
		t.Errorf("the name of markup is shown as %q", got)
	}
	b.filters(base)
	b.refusals(base, dialogs)
	b.decides(base)
	b.everyPage(base)
}

// notMarkup checks that nothing that a job sent became an element.
func (b *browser) notMarkup(dialogs chan string) {
	b.t.Helper()
	if n := eval[int](b, `document.querySelectorAll("main img, main script, [onerror], [onclick]").length`); n != 0 {
		b.t.Errorf("%d elements came from a name", n)
	}
	select {
	case text := <-dialogs:
		b.t.Errorf("a dialog opened: %s", text)
	default:
	}
}

// filters uses the form, and looks at what comes then.
func (b *browser) filters(base string) {
	b.t.Helper()
	b.do(chromedp.Navigate(base+"/"), chromedp.SendKeys("#f-host", "VENDOR"), chromedp.Click(".filter button"))
	b.until(`location.search.includes("host=VENDOR") && document.querySelectorAll("#rows tr").length === 3`)
	if got := eval[string](b, `[...new Set([...document.querySelectorAll("#rows td.what")].map(e => e.textContent))].join()`); got != "telemetry.vendor.example:443" {
		b.t.Errorf("filtered: %s", got)
	}
	b.do(chromedp.Navigate(base + "/?verdict=allowed"))
	if got := eval[string](b, `[...document.querySelectorAll("#rows td.what")].map(e => e.textContent).join()`); got != "registry.corp.example:443" {
		b.t.Errorf("allowed: %s", got)
	}
}

// refusals opens "Allow this" of the most refused destination by the keyboard.
func (b *browser) refusals(base string, dialogs chan string) {
	b.t.Helper()
	b.do(chromedp.Navigate(base+"/refusals"), chromedp.Focus("tbody tr:first-child summary"), chromedp.KeyEvent("\r"))
	b.until(`document.querySelector("tbody tr:first-child details").open`)
	if got := eval[string](b, `document.querySelector("tbody tr:first-child code.line").innerText`); got != "- telemetry.vendor.example" {
		b.t.Errorf("the line that allows it is %q", got)
	}
	if got := eval[string](b, `document.querySelector("tbody tr:first-child code.command").innerText`); !strings.HasPrefix(got, "sallyport explain -c /") || !strings.HasSuffix(got, "/sallyport.yaml --pool build telemetry.vendor.example") {
		b.t.Errorf("the command that explains it is %q", got)
	}
	b.notMarkup(dialogs)
}

// decides follows the latest refusal to its decision and back to its alert.
func (b *browser) decides(base string) {
	b.t.Helper()
	b.do(chromedp.Navigate(base+"/alerts"), chromedp.Click("article .id"))
	b.until(`location.pathname.startsWith("/decisions/") && document.querySelector("ol.story")`)
	if got := eval[string](b, `document.querySelector("main").innerText`); !strings.Contains(got, "refused") || !strings.Contains(got, "Alerts about it") {
		b.t.Errorf("the decision's page says %s", got)
	}
}

// everyPage checks each page at both widths in both themes, and takes its picture.
func (b *browser) everyPage(base string) {
	b.t.Helper()
	decision := eval[string](b, "location.pathname")
	for name, path := range map[string]string{"live": "/", "refusals": "/refusals", "alerts": "/alerts", "pools": "/pools", "pool": "/pools/build", "decision": decision, "wrong": "/decisions/none", "signin": "/sign-in"} {
		for _, theme := range []string{"light", "dark"} {
			for _, width := range []int64{400, 1600} {
				b.look(width, theme)
				b.do(chromedp.Navigate(base + path))
				if name == "refusals" {
					eval[int](b, `[...document.querySelectorAll("details")].map(d => d.open = true).length`)
				}
				at := fmt.Sprintf("page-%s-%d-%s", name, width, theme)
				b.picture(at)
				for _, fault := range eval[[]string](b, accessible) {
					b.t.Errorf("%s: %s", at, fault)
				}
			}
		}
	}
}

// TestPageOverTCP: the daemon's own link works once in a browser, the API wants
// the token, and a Host that a page of elsewhere resolved to us gets nothing.
func TestPageOverTCP(t *testing.T) {
	d := prepare(t, config{})
	address := d.ip + ":9181"
	d.listen = fmt.Sprintf("{proxy: %q, dns: %q, admin: %q, control: %q}", d.proxy, d.dns, d.admin, address)
	d.extra = "admin: {token_file: " + d.path("token") + "}\n"
	d.write("127.0.0.1:1", pagePools)
	if err := os.WriteFile(d.path("token"), []byte("0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.run()
	got := command(t, d.dir, "page", "-c", "sallyport.yaml")
	link := strings.TrimSpace(got.stdout)
	if got.code != 0 || !regexp.MustCompile(`^http://`+regexp.QuoteMeta(address)+`/sign-in/[A-Za-z0-9_-]{43}$`).MatchString(link) {
		t.Fatalf("exit code %d: %s%s", got.code, got.stdout, got.stderr)
	}
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	ask := func(url, host string, cookies ...*http.Cookie) *http.Response {
		t.Helper()
		r, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		r.Header.Set("Accept", "text/html")
		for _, c := range cookies {
			r.AddCookie(c)
		}
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		return answer
	}
	if r := ask(link, "evil.example"); r.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("a rebound Host: %s", r.Status)
	}
	in := ask(link, "")
	if in.StatusCode != http.StatusOK || len(in.Cookies()) != 1 {
		t.Fatalf("the link: %s", in.Status)
	}
	if r := ask(link, ""); r.StatusCode != http.StatusForbidden {
		t.Errorf("the link again: %s", r.Status)
	}
	for _, c := range []struct {
		path string
		with []*http.Cookie
		want int
	}{
		{"/", nil, 303}, {"/", in.Cookies(), 200}, {"/pools/build", in.Cookies(), 200}, {"/live", nil, 401}, {"/api/v1/status", in.Cookies(), 401}, {"/api/v1/page-links", in.Cookies(), 401},
	} {
		if r := ask("http://"+address+c.path, "", c.with...); r.StatusCode != c.want || r.Header.Get("Content-Security-Policy") == "" {
			t.Errorf("%s: %s, want %d", c.path, r.Status, c.want)
		}
	}
	if got := command(t, d.dir, "page", "-c", "sallyport.yaml", "--listen", "127.0.0.1:0"); got.code != 2 || !strings.Contains(got.stderr, "--listen is for a daemon whose listen.control is a socket") {
		t.Errorf("--listen where it has no use: %d, %s", got.code, got.stderr)
	}
}

// TestPageOverTheSocket: whoever may open it sees the page; a browser that was led
// there under a foreign name does not. The relay passes pages on, and nothing else.
func TestPageOverTheSocket(t *testing.T) {
	d := start(t, config{upstream: "127.0.0.1:1", pools: pagePools})
	for host, want := range map[string]string{"localhost:8080": "200", "127.0.0.1:8080": "200", "evil.example": "421", "192.0.2.1": "421"} {
		got := commandIn(t, d.dir, nil, "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--unix-socket", d.path("control.sock"), "-H", "Sec-Fetch-Site: none", "http://"+host+"/")
		if got.stdout != want {
			t.Errorf("a browser at %s: %s, want %s", host, got.stdout, want)
		}
	}
	link := pageLink(t, d)
	base := link[:strings.Index(link, "/sign-in/")]
	for _, args := range [][]string{{base + "/api/v1/status"}, {base + "/"}, {"-X", "DELETE", base + "/api/v1/baseline?pool=build&destination=a.example:443"}, {base + "/live"}} {
		got := commandIn(t, d.dir, nil, "curl", append([]string{"-s", "-o", "/dev/null", "-w", "%{http_code}"}, args...)...)
		if got.stdout != "401" {
			t.Errorf("%v without the link: %s", args, got.stdout)
		}
	}
	jar := d.path("jar")
	steps := [][]string{{"-c", jar, link}, {"-b", jar, base + "/"}, {"-b", jar, base + "/api/v1/status"}, {"-b", jar, "-H", "Host: evil.example", base + "/"}, {link}}
	for i, want := range []string{"200", "200", "401", "421", "403"} {
		got := commandIn(t, d.dir, nil, "curl", append([]string{"-s", "-o", "/dev/null", "-w", "%{http_code}"}, steps[i]...)...)
		if got.stdout != want {
			t.Errorf("%v: %s, want %s", steps[i], got.stdout, want)
		}
	}
	for _, listen := range []string{"0.0.0.0:0", "192.0.2.1:80", "localhost:0"} {
		if got := command(t, d.dir, "page", "-c", "sallyport.yaml", "--listen", listen); got.code != 2 || !strings.Contains(got.stderr, "write a loopback address") {
			t.Errorf("--listen %s: %d, %s", listen, got.code, got.stderr)
		}
	}
}
