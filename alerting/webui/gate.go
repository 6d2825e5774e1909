package webui

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"html/template"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/rs/zerolog"
)

// A Gate lets those in who showed the token, or followed a one-time link, and
// remembers them by a cookie. It keeps what it knows in memory only. Safe for
// concurrent use.
type Gate struct {
	log       zerolog.Logger
	token     *[sha256.Size]byte // of the token; nil: links only
	cookie    string             // its name, as cookies do not know ports
	templates map[string]*template.Template
	sessions  sessions
	links     links
	guesses   guesses
}

// GateConfig is what a gate needs to know.
type GateConfig struct {
	Log zerolog.Logger
	// Token lets in who shows it; with "" nothing but a one-time link does.
	Token string
}

// NewGate makes a gate that has let nobody in yet.
func NewGate(config GateConfig) (*Gate, error) {
	templates, err := parsePages()
	if err != nil {
		return nil, err
	}
	name, err := secret()
	if err != nil {
		return nil, err
	}
	g := &Gate{log: config.Log, cookie: "sallyport-" + name[:8], templates: templates}
	g.sessions.open, g.links.open = make(map[digest]*session), make(map[digest]time.Time)
	if config.Token != "" {
		sum := sha256.Sum256([]byte(config.Token))
		g.token = &sum
	}
	return g, nil
}

// Guard puts the gate before pages, which take a session or the token, and
// before everything else, which takes the token alone: a browser can send
// nothing there. rest may be nil.
func (g *Gate) Guard(pages, rest http.Handler) http.Handler {
	mux := http.NewServeMux()
	shown := g.admit(pages)
	for _, path := range Paths() {
		mux.Handle(path, shown)
	}
	mux.Handle(AssetPaths, pages)
	mux.HandleFunc("GET /sign-in", func(w http.ResponseWriter, r *http.Request) { g.signInForm(w, r, http.StatusOK, "") })
	mux.HandleFunc("POST /sign-in", g.signIn)
	mux.HandleFunc("GET /sign-in/{code}", g.followLink)
	mux.HandleFunc("POST /sign-out", g.signOut)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !g.hasToken(w, r):
			unauthorized(w)
		case rest == nil:
			http.NotFound(w, r)
		default:
			rest.ServeHTTP(w, r)
		}
	})
	return Protected(http.NewCrossOriginProtection().Handler(mux))
}

// unauthorized asks for the token, or for patience where isToken said so.
func unauthorized(w http.ResponseWriter) {
	if w.Header().Get("Retry-After") != "" {
		http.Error(w, tooManyGuesses, http.StatusTooManyRequests)
		return
	}
	w.Header().Set("WWW-Authenticate", "Bearer")
	http.Error(w, "the control API wants the token of admin.token_file", http.StatusUnauthorized)
}

const tooManyGuesses = "There were too many wrong tokens from your address. Try again in half a minute."

// hasToken reports whether a request shows "Authorization: Bearer TOKEN".
func (g *Gate) hasToken(w http.ResponseWriter, r *http.Request) bool {
	shown, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return ok && g.isToken(w, r, shown)
}

// isToken compares what a request shows in constant time, and counts what is
// wrong. Of a client that guessed too often it takes nothing: then it sets
// Retry-After.
func (g *Gate) isToken(w http.ResponseWriter, r *http.Request, shown string) bool {
	if g.token == nil {
		return false
	}
	now := time.Now()
	if g.guesses.tooMany(r.RemoteAddr, now) {
		w.Header().Set("Retry-After", "30")
		return false
	}
	sum := sha256.Sum256([]byte(shown))
	if subtle.ConstantTimeCompare(sum[:], g.token[:]) == 1 {
		return true
	}
	g.guesses.count(r.RemoteAddr, now)
	g.log.Warn().Str("client", r.RemoteAddr).Msg("a wrong token was shown to the control listener")
	return false
}

// sessionKey is the key of the session in a request's context.
type sessionKey struct{}

// hasSession reports whether a session let the request in.
func hasSession(ctx context.Context) bool { return ctx.Value(sessionKey{}) != nil }

// admit lets those in who have a session, until it ends, or the token. Others
// who can read a page are asked to sign in.
func (g *Gate) admit(pages http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.hasToken(w, r) {
			pages.ServeHTTP(w, r)
			return
		}
		if s := g.session(r); s != nil {
			ctx, cancel := context.WithCancel(context.WithValue(r.Context(), sessionKey{}, s))
			defer cancel()
			defer context.AfterFunc(s.ctx, cancel)() // what is open ends with the session
			pages.ServeHTTP(w, r.WithContext(ctx))
			return
		}
		if w.Header().Get("Retry-After") != "" || r.URL.Path == "/live" || !strings.Contains(r.Header.Get("Accept"), "text/html") {
			unauthorized(w)
			return
		}
		http.Redirect(w, r, "/sign-in?"+url.Values{"next": {r.URL.RequestURI()}}.Encode(), http.StatusSeeOther)
	})
}

// session is that of a request's cookie; nil if it has none that is good.
func (g *Gate) session(r *http.Request) *session {
	cookie, err := r.Cookie(g.cookie)
	if err != nil {
		return nil
	}
	return g.sessions.get(cookie.Value)
}

// maxForm bounds the body of a form, in bytes.
const maxForm = 16 << 10

// signIn takes the token from the form.
func (g *Gate) signIn(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	switch {
	case g.token == nil:
		g.signInForm(w, r, http.StatusForbidden, "")
	case g.isToken(w, r, strings.TrimSpace(r.PostFormValue("token"))):
		g.begin(w, r, nextPath(r.PostFormValue("next")))
	case w.Header().Get("Retry-After") != "":
		g.signInForm(w, r, http.StatusTooManyRequests, tooManyGuesses)
	default:
		g.signInForm(w, r, http.StatusUnauthorized, "That is not the token of admin.token_file.")
	}
}

// followLink takes a one-time link.
func (g *Gate) followLink(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet && g.links.use(r.PathValue("code"), time.Now()) {
		g.begin(w, r, "/")
		return
	}
	g.signInForm(w, r, http.StatusForbidden, "That link was used before, or is too old. sallyport page prints another.")
}

// begin opens a session. It answers with a page that leads on: after a redirect
// that began on another site, no browser sends the new cookie.
func (g *Gate) begin(w http.ResponseWriter, r *http.Request, next string) {
	value, err := g.sessions.begin()
	if err != nil {
		http.Error(w, "no session could be made", http.StatusInternalServerError)
		return
	}
	g.log.Info().Str("client", r.RemoteAddr).Msg("signed in at the page")
	http.SetCookie(w, &http.Cookie{
		Name: g.cookie, Value: value, Path: "/", MaxAge: int(sessionLife.Seconds()), HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: cameByTLS(r),
	})
	render(w, g.templates["signedin"], http.StatusOK, view{Title: "Signed in", Here: "signedin", Now: time.Now().UTC(), Page: next})
}

// cameByTLS reports whether a browser says that it asked by https, of a proxy in
// front of us, so that it never sends the cookie in the clear: by the origin of
// the form, or by Sec-Fetch-Site, which is sent by https and on loopback only
// (W3C Fetch Metadata, section 2). Whoever makes that up has a cookie that their
// own browser does not send.
func cameByTLS(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" && origin != "null" {
		return strings.HasPrefix(origin, "https://")
	}
	host := (&url.URL{Host: r.Host}).Hostname()
	addr, err := netip.ParseAddr(host)
	local := host == "localhost" || strings.HasSuffix(host, ".localhost") || err == nil && addr.IsLoopback()
	return r.Header.Get("Sec-Fetch-Site") != "" && !local
}

// signOut ends the session of the request, and what it has open.
func (g *Gate) signOut(w http.ResponseWriter, r *http.Request) {
	if cookie, err := r.Cookie(g.cookie); err == nil {
		g.sessions.end(cookie.Value)
	}
	http.SetCookie(w, &http.Cookie{Name: g.cookie, Path: "/", MaxAge: -1, HttpOnly: true, SameSite: http.SameSiteStrictMode})
	http.Redirect(w, r, "/sign-in", http.StatusSeeOther)
}

// A signInPage is what the form shows.
type signInPage struct {
	Fault    string
	Next     string
	HasToken bool // there is one to show
}

func (g *Gate) signInForm(w http.ResponseWriter, r *http.Request, code int, fault string) {
	next := nextPath(r.FormValue("next"))
	render(w, g.templates["signin"], code, view{
		Title: "Sign in", Here: "signin", Now: time.Now().UTC(), Page: signInPage{Fault: fault, Next: next, HasToken: g.token != nil},
	})
}

// nextPath is where a sign-in leads: a page of ours, or the first one.
func nextPath(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "" || u.Host != "" || !strings.HasPrefix(u.Path, "/") || strings.HasPrefix(u.Path, "//") || strings.ContainsAny(text, "\\\r\n\t") {
		return "/"
	}
	return (&url.URL{Path: u.Path, RawQuery: u.RawQuery}).String()
}

// NewLink makes a link that signs one browser in, once, until it expires: a path.
func (g *Gate) NewLink() (path string, expires time.Time, err error) {
	code, expires, err := g.links.add(time.Now())
	if err != nil {
		return "", time.Time{}, err
	}
	return "/sign-in/" + code, expires, nil
}

// digestOf is what is kept of a secret, so that no comparison tells its bytes.
func digestOf(secret string) digest { return sha256.Sum256([]byte(secret)) }

// A digest is what is kept of a secret.
type digest [sha256.Size]byte

// String shows the beginning, for logs.
func (d digest) String() string { return hex.EncodeToString(d[:4]) }
