package webui

import (
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"time"
)

// NewRelay passes requests for pages on to a daemon, whose way is transport, and
// nothing else: whoever reaches it can read the pages and ask for nothing more.
// It keeps no one out; put a Gate before it.
func NewRelay(transport http.RoundTripper) http.Handler {
	proxy := &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: "localhost"})
			for name := range r.Out.Header {
				switch name {
				case "Accept", "Last-Event-Id":
				default: // a cookie is the gate's business
					r.Out.Header.Del(name)
				}
			}
		},
		ModifyResponse: func(r *http.Response) error {
			protected := http.Header{}
			protect(protected)
			for name := range protected {
				r.Header.Del(name) // the gate's answer has them
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, "the daemon does not answer: "+err.Error(), http.StatusBadGateway)
		},
	}
	mux := http.NewServeMux()
	for _, path := range slices.DeleteFunc(append(Paths(), AssetPaths), func(path string) bool { return path == streamPath }) {
		mux.Handle(path, proxy)
	}
	mux.HandleFunc(streamPath, func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w) // a stream ends when it does
		_ = control.SetReadDeadline(time.Time{})
		_ = control.SetWriteDeadline(time.Time{})
		proxy.ServeHTTP(w, r)
	})
	return mux
}
