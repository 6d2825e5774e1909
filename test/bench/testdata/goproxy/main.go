// Command goproxy is a proxy with goproxy and nothing else: a map of allowed
// names, no resolver (every name is 127.0.0.1) and no log.
package main

import (
	"context"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/elazarl/goproxy"
)

func main() {
	text, err := os.ReadFile(os.Args[2])
	if err != nil {
		panic(err)
	}
	allowed := map[string]bool{}
	for _, name := range strings.Fields(string(text)) {
		allowed[name] = true
	}
	ours := func(hostport string) bool {
		host, _, err := net.SplitHostPort(hostport)
		return err == nil && allowed[host]
	}
	var dialer net.Dialer
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		return dialer.DialContext(ctx, network, "127.0.0.1:"+port)
	}
	proxy := goproxy.NewProxyHttpServer()
	proxy.Tr = &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 100}
	proxy.ConnectDial = func(network, addr string) (net.Conn, error) { return dial(context.Background(), network, addr) }
	proxy.OnRequest().HandleConnectFunc(func(host string, ctx *goproxy.ProxyCtx) (*goproxy.ConnectAction, string) {
		if ours(host) {
			return goproxy.OkConnect, host
		}
		ctx.Resp = goproxy.NewResponse(ctx.Req, "text/plain", http.StatusForbidden, "no")
		return goproxy.RejectConnect, host
	})
	proxy.OnRequest().DoFunc(func(r *http.Request, _ *goproxy.ProxyCtx) (*http.Request, *http.Response) {
		if ours(r.URL.Host) {
			return r, nil
		}
		return r, goproxy.NewResponse(r, "text/plain", http.StatusForbidden, "no")
	})
	panic(http.ListenAndServe(os.Args[1], proxy))
}
