package webui_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestNobodyComesInWithoutTokenLinkOrSession, by any path; people are led to the form.
func TestNobodyComesInWithoutTokenLinkOrSession(t *testing.T) {
	w := newWorld(t)
	_, h := w.gate(token)
	for _, path := range []string{"/", "/refusals", "/alerts", "/pools", "/pools/build", "/decisions/a2b3c4d5e6f7"} {
		if got := get(t, h, path+"?x=1"); got.Code != http.StatusSeeOther || !strings.HasPrefix(got.Header().Get("Location"), "/sign-in?next=%2F") {
			t.Errorf("%s: %d to %q", path, got.Code, got.Header().Get("Location"))
		}
		if got := get(t, h, path, with("Accept", "application/json")); got.Code != http.StatusUnauthorized {
			t.Errorf("%s of a program: %d", path, got.Code)
		}
	}
	for _, path := range []string{"/live", "/api/v1/status", "/debug/pprof/", "/nothing"} {
		for i, shown := range []string{"", "Bearer ", "Bearer " + token + "0", "Bearer " + token[1:], token} {
			another := func(r *http.Request) { r.RemoteAddr = fmt.Sprintf("198.51.100.%d:1", i) }
			if got := get(t, h, path, another, with("Authorization", shown)); got.Code != http.StatusUnauthorized || got.Header().Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("%s with %q: %d", path, shown, got.Code)
			}
		}
	}
	if got := get(t, h, "/", with("Cookie", "sallyport=x; "+"sallyport-aaaaaaaa=y")); got.Code != http.StatusSeeOther {
		t.Errorf("a made-up cookie: %d", got.Code)
	}
	for _, path := range []string{"/", "/api/v1/status"} {
		if got := get(t, h, path, with("Authorization", "Bearer "+token)); got.Code != http.StatusOK {
			t.Errorf("%s with the token: %d", path, got.Code)
		}
	}
	if got := get(t, h, "/assets/page.css"); got.Code != http.StatusOK {
		t.Errorf("the style of the form: %d", got.Code)
	}
}

// TestSigningInAndOut: by the form, with a cookie that no script reads and no other
// site has sent, which opens pages and never the API.
func TestSigningInAndOut(t *testing.T) {
	w := newWorld(t)
	_, h := w.gate(token)
	if got := post(t, h, "/sign-in", "token=wrong"); got.Code != http.StatusUnauthorized || len(got.Result().Cookies()) != 0 {
		t.Errorf("a wrong token: %d, %v", got.Code, got.Result().Cookies())
	}
	in := post(t, h, "/sign-in", "token="+token+"&next=%2Frefusals%3Fpool%3Dbuild")
	c := in.Result().Cookies()[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.MaxAge != 12*60*60 || len(c.Value) < 43 || c.Domain != "" {
		t.Errorf("the cookie is %s", c.Raw)
	}
	if !strings.Contains(in.Body.String(), `content="0; url=/refusals?pool=build"`) {
		t.Errorf("it does not lead on: %s", in.Body)
	}
	me := cookie(t, in)
	page := get(t, h, "/", me)
	if page.Code != http.StatusOK || !strings.Contains(page.Body.String(), `action="/sign-out"`) {
		t.Errorf("signed in: %d %s", page.Code, page.Body)
	}
	if strings.Contains(page.Body.String(), token) || strings.Contains(page.Body.String(), c.Value) {
		t.Error("a secret is on the page")
	}
	if got := get(t, h, "/api/v1/status", me); got.Code != http.StatusUnauthorized {
		t.Errorf("the API with a cookie: %d", got.Code)
	}
	if got := post(t, h, "/sign-out", "", me); got.Code != http.StatusSeeOther || got.Result().Cookies()[0].MaxAge >= 0 {
		t.Errorf("signing out: %d", got.Code)
	}
	if got := get(t, h, "/", me); got.Code != http.StatusSeeOther {
		t.Errorf("after signing out: %d", got.Code)
	}
}

// TestAFormOfAnotherSiteIsRefused: whoever sends it.
func TestAFormOfAnotherSiteIsRefused(t *testing.T) {
	w := newWorld(t)
	_, h := w.gate(token)
	me := cookie(t, post(t, h, "/sign-in", "token="+token, with("Origin", "http://127.0.0.1:9181")))
	for _, path := range []string{"/sign-in", "/sign-out", "/api/v1/page-links"} {
		for header, value := range map[string]string{"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"} {
			if got := post(t, h, path, "token="+token, me, with(header, value)); got.Code != http.StatusForbidden {
				t.Errorf("%s with %s: %d", path, header, got.Code)
			}
		}
		for _, value := range []string{"null", "http://127.0.0.1:1234"} {
			if got := post(t, h, path, "token="+token, me, with("Origin", value)); got.Code != http.StatusForbidden {
				t.Errorf("%s from %s: %d", path, value, got.Code)
			}
		}
		if got := post(t, h, path, "token="+token, me, with("Sec-Fetch-Site", "same-site")); got.Code != http.StatusForbidden {
			t.Errorf("%s from another port: %d", path, got.Code)
		}
	}
	if got := get(t, h, "/", me); got.Code != http.StatusOK {
		t.Errorf("a foreign form signed out: %d", got.Code)
	}
}

// TestNextLeadsToOurOwnPages and nowhere else.
func TestNextLeadsToOurOwnPages(t *testing.T) {
	w := newWorld(t)
	_, h := w.gate(token)
	for next, want := range map[string]string{
		"/alerts": "/alerts", "//evil.example/": "/", "http://evil.example/": "/", "javascript:alert(1)": "/", `/\evil.example`: "/", `\\evil.example`: "/",
		"/%2f/evil.example": "/", "": "/", "alerts": "/", "/\t/evil.example": "/", "/?a=%22%3E%3Cscript%3E": "/?a=%22%3E%3Cscript%3E",
	} {
		got := get(t, h, "/sign-in", func(r *http.Request) {
			query := r.URL.Query()
			query.Set("next", next)
			r.URL.RawQuery = query.Encode()
		})
		if !strings.Contains(got.Body.String(), `name="next" value="`+want+`"`) {
			t.Errorf("next=%q: %s", next, got.Body)
		}
	}
}

// TestALinkWorksOnce, for five minutes, and to look at it does not use it up.
func TestALinkWorksOnce(t *testing.T) {
	w := newWorld(t)
	gate, h := w.gate("")
	path, expires, err := gate.NewLink()
	if err != nil || time.Until(expires) > 5*time.Minute || time.Until(expires) < 4*time.Minute {
		t.Fatalf("until %v: %v", expires, err)
	}
	if got := get(t, h, path, func(r *http.Request) { r.Method = http.MethodHead }); len(got.Result().Cookies()) != 0 {
		t.Error("HEAD signs in")
	}
	first := get(t, h, path)
	if first.Code != http.StatusOK || !strings.Contains(first.Body.String(), "url=/") {
		t.Fatalf("first: %d %s", first.Code, first.Body)
	}
	if got := get(t, h, "/", cookie(t, first)); got.Code != http.StatusOK {
		t.Errorf("with its cookie: %d", got.Code)
	}
	if got := get(t, h, path); got.Code != http.StatusForbidden || len(got.Result().Cookies()) != 0 || !strings.Contains(got.Body.String(), "used before") {
		t.Errorf("again: %d %s", got.Code, got.Body)
	}
	if got := post(t, h, "/sign-in", "token="); got.Code != http.StatusForbidden {
		t.Errorf("an empty token where there is none: %d", got.Code)
	}
	if got := get(t, h, "/", with("Authorization", "Bearer ")); got.Code != http.StatusSeeOther {
		t.Errorf("an empty token as a bearer: %d", got.Code)
	}
}

// TestLinksAndSessionsEnd, and neither grows without bound.
func TestLinksAndSessionsEnd(t *testing.T) {
	w := newWorld(t)
	synctest.Test(t, func(t *testing.T) {
		gate, h := w.gate(token)
		var paths []string
		for {
			path, _, err := gate.NewLink()
			if err != nil {
				break
			}
			paths = append(paths, path)
		}
		if len(paths) != 16 {
			t.Errorf("%d links wait", len(paths))
		}
		me := cookie(t, get(t, h, paths[0]))
		time.Sleep(5 * time.Minute)
		if got := get(t, h, paths[1]); got.Code != http.StatusForbidden {
			t.Errorf("a link after five minutes: %d", got.Code)
		}
		if _, _, err := gate.NewLink(); err != nil {
			t.Errorf("after the others have ended: %v", err)
		}
		time.Sleep(12*time.Hour - 5*time.Minute - time.Second)
		if got := get(t, h, "/", me); got.Code != http.StatusOK {
			t.Errorf("a session before twelve hours: %d", got.Code)
		}
		time.Sleep(2 * time.Second)
		if got := get(t, h, "/", me); got.Code != http.StatusSeeOther {
			t.Errorf("a session after twelve hours: %d", got.Code)
		}
		var all []func(*http.Request)
		for range 66 {
			path, _, err := gate.NewLink()
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, cookie(t, get(t, h, path)))
			time.Sleep(time.Second)
		}
		for i, me := range all {
			want := http.StatusOK
			if i < 2 {
				want = http.StatusSeeOther // the oldest made room
			}
			if got := get(t, h, "/", me); got.Code != want {
				t.Errorf("session %d: %d", i, got.Code)
			}
		}
		time.Sleep(13 * time.Hour) // nothing is left to wait for
	})
}

// TestGuessingIsSlow: ten wrong tokens of a client at once, by the form or as a
// bearer, then one each three seconds. Nobody else waits for it.
func TestGuessingIsSlow(t *testing.T) {
	w := newWorld(t)
	from := func(addr string) func(*http.Request) { return func(r *http.Request) { r.RemoteAddr = addr } }
	bearer := func(token string) func(*http.Request) { return with("Authorization", "Bearer "+token) }
	for says, guess := range map[string]func(h http.Handler, token, addr string) *httptest.ResponseRecorder{
		"the form": func(h http.Handler, token, addr string) *httptest.ResponseRecorder {
			return post(t, h, "/sign-in", "token="+token, from(addr))
		},
		"the API": func(h http.Handler, token, addr string) *httptest.ResponseRecorder {
			return get(t, h, "/api/v1/status", bearer(token), from(addr))
		},
		"a page": func(h http.Handler, token, addr string) *httptest.ResponseRecorder {
			return get(t, h, "/", bearer(token), from(addr), with("Accept", "application/json"))
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			_, h := w.gate(token)
			for range 40 { // right ones cost nothing
				if got := guess(h, token, "192.0.2.1:1"); got.Code != http.StatusOK {
					t.Fatalf("%s: the right one: %d", says, got.Code)
				}
			}
			for i := range 10 {
				if got := guess(h, "wrong", fmt.Sprintf("192.0.2.1:%d", i+1)); got.Code != http.StatusUnauthorized {
					t.Fatalf("%s: one of the first: %d", says, got.Code)
				}
			}
			for _, shown := range []string{"wrong", token} {
				if got := guess(h, shown, "[::ffff:192.0.2.1]:99"); got.Code != http.StatusTooManyRequests || got.Header().Get("Retry-After") == "" {
					t.Errorf("%s: the eleventh: %d", says, got.Code)
				}
			}
			if got := get(t, h, "/api/v1/status", bearer(token), from("192.0.2.1:1")); got.Code != http.StatusTooManyRequests {
				t.Errorf("%s: another way: %d", says, got.Code)
			}
			for _, other := range []string{"192.0.2.2:1", "[2001:db8::1]:1", "@"} {
				if got := guess(h, token, other); got.Code != http.StatusOK {
					t.Errorf("%s: from %s: %d", says, other, got.Code)
				}
			}
			time.Sleep(3 * time.Second)
			if got := guess(h, "wrong", "192.0.2.1:1"); got.Code != http.StatusUnauthorized {
				t.Errorf("%s: after three seconds: %d", says, got.Code)
			}
			if got := guess(h, token, "192.0.2.1:1"); got.Code != http.StatusTooManyRequests {
				t.Errorf("%s: at once after it: %d", says, got.Code)
			}
			time.Sleep(3 * time.Second)
			if got := guess(h, token, "192.0.2.1:1"); got.Code != http.StatusOK {
				t.Errorf("%s: the right one after six: %d", says, got.Code)
			}
			time.Sleep(13 * time.Hour)
		})
	}
	synctest.Test(t, func(t *testing.T) {
		_, h := w.gate(token)
		for i := range 11 {
			got := get(t, h, "/api/v1/status", bearer("wrong"), from(fmt.Sprintf("[2001:db8::%x]:1", i)))
			if want := map[bool]int{true: http.StatusTooManyRequests, false: http.StatusUnauthorized}[i == 10]; got.Code != want {
				t.Errorf("guess %d of a /64: %d", i+1, got.Code)
			}
		}
		for i := range 5000 { // more than are remembered
			if got := get(t, h, "/api/v1/status", bearer("wrong"), from(fmt.Sprintf("10.0.%d.%d:1", i/250, i%250))); got.Code != http.StatusUnauthorized {
				t.Fatalf("the first of client %d: %d", i, got.Code)
			}
		}
		if got := get(t, h, "/api/v1/status", bearer(token), from("[2001:db8::1]:1")); got.Code != http.StatusTooManyRequests {
			t.Errorf("who guessed most is forgotten: %d", got.Code)
		}
	})
}

// TestTheCookieIsForTLSWhereTheBrowserSaysSo, and only there: a browser drops a
// secure cookie that it got in the clear.
func TestTheCookieIsForTLSWhereTheBrowserSaysSo(t *testing.T) {
	w := newWorld(t)
	gate, h := w.gate(token)
	host := func(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }
	for says, c := range map[string]struct {
		change []func(*http.Request)
		secure bool
	}{
		"a form by https":                {[]func(*http.Request){host("gate.example"), with("Origin", "https://gate.example"), with("Sec-Fetch-Site", "same-origin")}, true},
		"a form by http":                 {[]func(*http.Request){host("gate.example"), with("Origin", "http://gate.example")}, false},
		"a form on loopback":             {[]func(*http.Request){host("127.0.0.1:9181"), with("Origin", "http://127.0.0.1:9181"), with("Sec-Fetch-Site", "same-origin")}, false},
		"a browser that says nothing":    {[]func(*http.Request){host("gate.example")}, false},
		"a link by https":                {[]func(*http.Request){host("gate.example"), with("Sec-Fetch-Site", "none")}, true},
		"a link on localhost":            {[]func(*http.Request){host("localhost:9181"), with("Sec-Fetch-Site", "none")}, false},
		"a link on loopback, by address": {[]func(*http.Request){host("[::1]:9181"), with("Sec-Fetch-Site", "none")}, false},
	} {
		var in *httptest.ResponseRecorder
		if strings.HasPrefix(says, "a link") {
			path, _, err := gate.NewLink()
			if err != nil {
				t.Fatal(err)
			}
			in = get(t, h, path, c.change...)
		} else {
			in = post(t, h, "/sign-in", "token="+token, c.change...)
		}
		if cookies := in.Result().Cookies(); len(cookies) != 1 || cookies[0].Secure != c.secure {
			t.Errorf("%s: %d %v", says, in.Code, in.Result().Header["Set-Cookie"])
		}
	}
}
