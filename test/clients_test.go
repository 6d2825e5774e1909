package test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// dialRaw opens a TCP connection with the tests' patience as deadline.
func dialRaw(addr string) (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err == nil {
		err = conn.SetDeadline(time.Now().Add(patience))
	}
	return conn, err
}

// clientWorld is a daemon in front of an HTTPS and an HTTP origin on their own
// ports, as real clients expect them.
func clientWorld(t *testing.T) (*reasonWorld, []string) {
	t.Helper()
	needRoot(t)
	d := prepare(t, config{})
	w := &reasonWorld{daemon: d, ca: newCA(t)}
	ip := d.neighbour(2)
	cert := w.ca.issue("tls.example", "xn--bcher-kva.example")
	w.tls, w.web = httpOrigin(t, ip+":443", &cert), httpOrigin(t, ip+":80", nil)
	w.upstream = newZone(t, "tls.example. 60 IN A "+ip, "web.example. 60 IN A "+ip, "xn--bcher-kva.example. 60 IN A "+ip)
	d.write(w.upstream.addr, "  build:\n    sources: [127.0.0.0/8]\n    resolves_to: [127.0.0.0/8]\n    allow: [tls.example, bücher.example, \"web.example:80\"]\n")
	d.run()
	proxy := "http://" + d.proxy
	return w, []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "LANG=C.UTF-8",
		"HTTP_PROXY=" + proxy, "HTTPS_PROXY=" + proxy, "http_proxy=" + proxy, "https_proxy=" + proxy, "NODE_USE_ENV_PROXY=1",
		"SSL_CERT_FILE=" + w.ca.file, "CURL_CA_BUNDLE=" + w.ca.file, "GIT_SSL_CAINFO=" + w.ca.file, "NODE_EXTRA_CA_CERTS=" + w.ca.file,
	}
}

func runClient(env []string, args ...string) (string, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestRealClients runs what jobs run, to an allowed and a refused host.
func TestRealClients(t *testing.T) {
	w, env := clientWorld(t)
	python := `import sys,urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=15).read().decode())`
	node := `fetch(process.argv[1]).then(r=>r.text()).then(console.log).catch(e=>{console.log(String(e), String(e.cause)); process.exit(1)})`
	for _, c := range []struct {
		program, what string
		args          []string
		want          string // part of the output; with a refusal: of the client's own error
		refused       bool
	}{
		{"curl", "HTTPS", []string{"-sS", "https://tls.example/a"}, "origin GET tls.example /a", false},
		{"curl", "HTTP/2 in the tunnel", []string{"-sS", "--http2", "-w", "%{http_version}", "https://tls.example/a"}, "\n2", false},
		{"curl", "HTTP/1.1 in the tunnel", []string{"-sS", "--http1.1", "-w", "%{http_version}", "https://tls.example/a"}, "\n1.1", false},
		{"curl", "an internationalised name", []string{"-sS", "https://bücher.example/a"}, "origin GET xn--bcher-kva.example /a", false},
		{"curl", "HTTP", []string{"-sS", "http://web.example/b"}, "origin GET web.example /b", false},
		{"curl", "HTTP through a tunnel", []string{"-sS", "--proxytunnel", "http://web.example/c"}, "origin GET web.example /c", false},
		{"curl", "a POST with Expect", []string{"-sS", "-H", "Expect: 100-continue", "-d", strings.Repeat("x", 5000), "http://web.example/d"}, "5000 bytes", false},
		{"curl", "a refused HTTPS host", []string{"-sS", "https://evil.example/"}, "403", true},
		{"curl", "a refused HTTP host", []string{"-sS", "-f", "http://evil.example/"}, "403", true},
		{"wget", "HTTPS", []string{"-nv", "-O", "-", "--ca-certificate=" + w.ca.file, "https://tls.example/a"}, "origin GET tls.example /a", false},
		{"wget", "HTTP", []string{"-nv", "-O", "-", "http://web.example/b"}, "origin GET web.example /b", false},
		{"wget", "a refused host", []string{"-nv", "-O", "-", "http://evil.example/b"}, "403: Sallyport: evil.example:80 not in pool build (not-in-allowlist, ", true},
		{"python3", "HTTPS by urllib", []string{"-c", python, "https://tls.example/a"}, "origin GET tls.example /a", false},
		{"python3", "HTTP by urllib", []string{"-c", python, "http://web.example/b"}, "origin GET web.example /b", false},
		{"python3", "a refused host by urllib", []string{"-c", python, "https://evil.example/"}, "not-in-allowlist", true},
		{"node", "fetch", []string{"-e", node, "https://tls.example/a"}, "", false},
	} {
		t.Run(c.program+" "+c.what, func(t *testing.T) {
			needProgram(t, c.program)
			if c.program == "node" {
				nodeFetch(t, w, env, c.args)
				return
			}
			out, err := runClient(env, append([]string{c.program}, c.args...)...)
			if (err != nil) != c.refused || !strings.Contains(out, c.want) {
				t.Errorf("%v: %s\nwant %q\n%s", err, out, c.want, w.dump())
			}
		})
	}
}

// nodeFetch runs Node's fetch. It obeys the proxy variables from Node 24 on;
// an older Node is driven through its http module's CONNECT.
func nodeFetch(t *testing.T, w *reasonWorld, env, args []string) {
	t.Helper()
	out, err := runClient(env, append([]string{"node"}, args...)...)
	if err == nil && strings.Contains(out, "origin GET tls.example /a") {
		return
	}
	host, port, _ := net.SplitHostPort(w.proxy)
	tunnel := fmt.Sprintf(`const http=require('http'),https=require('https');
http.request({host:'%s',port:%s,method:'CONNECT',path:'tls.example:443'}).on('connect',(res,socket)=>{
 https.get({host:'tls.example',port:443,path:'/a',servername:'tls.example',createConnection:()=>require('tls').connect({socket,servername:'tls.example'})},
  r=>r.on('data',d=>process.stdout.write(d)))}).end()`, host, port)
	if out, err := runClient(env, "node", "-e", tunnel); err != nil || !strings.Contains(out, "origin GET tls.example:443 /a") {
		t.Errorf("%v: %s\n%s", err, out, w.dump())
	}
}

// TestGitClone clones over HTTPS from a local server; a refused host shows the
// reason in git's own error.
func TestGitClone(t *testing.T) {
	needProgram(t, "git")
	w, env := clientWorld(t)
	repo := filepath.Join(t.TempDir(), "repo")
	for _, args := range [][]string{
		{"git", "init", "-q", repo},
		{"git", "-C", repo, "-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-q", "--allow-empty", "-m", "one"},
		{"git", "-C", repo, "update-server-info"},
	} {
		if out, err := runClient(env, args...); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	w.tls.serveFiles(filepath.Join(repo, ".git"))
	clone := filepath.Join(t.TempDir(), "clone")
	if out, err := runClient(env, "git", "clone", "-q", "https://tls.example/repo.git", clone); err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, w.dump())
	}
	if out, err := runClient(env, "git", "-C", clone, "log", "--oneline"); err != nil || !strings.Contains(out, "one") {
		t.Errorf("%v: %s", err, out)
	}
	out, err := runClient(env, "git", "clone", "-q", "https://evil.example/repo.git", clone+"2")
	if err == nil || !strings.Contains(out, "403") {
		t.Errorf("git's error for a refused host: %v %s", err, out)
	}
}
