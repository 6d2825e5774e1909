package test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// A browser is one tab of headless Chromium. Each call has patience.
type browser struct {
	t   *testing.T
	ctx context.Context
}

// openBrowser starts one, until the test ends.
func openBrowser(t *testing.T) *browser {
	t.Helper()
	needProgram(t, "chromium")
	options := []chromedp.ExecAllocatorOption{chromedp.Headless, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.DisableGPU, chromedp.ExecPath("chromium"), chromedp.UserDataDir(t.TempDir())}
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx)
		cancel()
	})
	b := &browser{t, ctx}
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	return b
}

// do runs steps.
func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// eval evaluates an expression.
func eval[T any](b *browser, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return value
}

// until waits until an expression is true, over pages that come and go, and says
// how long that took.
func (b *browser) until(expression string) time.Duration {
	b.t.Helper()
	began := time.Now()
	var last error
	eventually(b.t, expression, func() bool {
		ctx, cancel := context.WithTimeout(b.ctx, patience)
		defer cancel()
		var met bool
		met, last = chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		return last == nil && met
	}, func() string { return fmt.Sprint(last) })
	return time.Since(began)
}

// look sets width and theme.
func (b *browser) look(width int64, theme string) {
	b.t.Helper()
	b.do(chromedp.EmulateViewport(width, 900), chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}, {Name: "prefers-reduced-motion", Value: "reduce"}},
		})
		return err
	}))
}

// picture writes what is shown to $SALLYPORT_ARTIFACTS, if that is set.
func (b *browser) picture(name string) {
	b.t.Helper()
	dir := os.Getenv("SALLYPORT_ARTIFACTS")
	if dir == "" {
		return
	}
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644)
	}
	if err != nil {
		b.t.Error(err)
	}
}

// accessible lists what keeps a page from people who do not see it, or not well, or
// use no mouse: what checkers of accessibility look at, in small.
const accessible = `(() => {
  const faults = []
  const need = (ok, text) => { if (!ok) faults.push(text) }
  need(document.documentElement.lang === 'en', 'no language')
  need(document.title.length > 10, 'no title')
  need(document.querySelectorAll('h1').length === 1, 'not one h1')
  need(document.querySelector('main') && document.querySelector('header'), 'no landmarks')
  const skip = document.querySelector('a.skip')
  need(skip && document.querySelector(skip.getAttribute('href')), 'no skip link')
  let level = 0
  for (const h of document.querySelectorAll('h1, h2, h3')) {
    need(Number(h.tagName[1]) <= level + 1 || h.closest('article'), 'a heading leaves a level out: ' + h.textContent)
    level = Number(h.tagName[1])
  }
  for (const e of document.querySelectorAll('input:not([type=hidden]), select')) need(e.labels.length > 0, 'no label: ' + e.outerHTML)
  for (const e of document.querySelectorAll('a, button, summary')) need(e.textContent.trim() || e.getAttribute('aria-label'), 'no name: ' + e.outerHTML)
  for (const e of document.querySelectorAll('table')) {
    need(e.caption && e.caption.textContent, 'a table without caption')
    for (const th of e.querySelectorAll('th')) need(th.scope, 'a th without scope')
  }
  for (const e of document.querySelectorAll('section, nav')) need(e.getAttribute('aria-label') || document.getElementById(e.getAttribute('aria-labelledby')), 'a landmark without name')
  const ids = [...document.querySelectorAll('[id]')].map(e => e.id)
  need(new Set(ids).size === ids.length, 'an id is there twice')
  need(document.documentElement.scrollWidth <= innerWidth, 'wider than the screen: ' + document.documentElement.scrollWidth)
  const rgb = (text) => (text.match(/[\d.]+/g) || []).map(Number)
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0)
  const ground = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.length === 3 || c[3] === 1) return c } return [255, 255, 255] }
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const e = node.parentElement
    if (!node.textContent.trim() || ['SCRIPT', 'TEMPLATE', 'OPTION'].includes(e.tagName) || !e.checkVisibility()) continue
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x)
    const ratio = (a + 0.05) / (b + 0.05)
    need(ratio >= 4.5, 'contrast ' + ratio.toFixed(2) + ': ' + node.textContent.trim().slice(0, 40))
  }
  const first = document.querySelector('main a, main button, main input, main summary')
  if (first) {
    first.focus({ focusVisible: true })
    need(getComputedStyle(first).outlineStyle !== 'none', 'the focus is not seen: ' + first.outerHTML)
  }
  return faults
})()`
