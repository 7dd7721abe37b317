//go:build unix

package test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// contrasts returns the texts of the page that are hard to read: those whose contrast
// with what is behind them is less than 4.5 (WCAG 2.2, 1.4.3).
const contrasts = `(() => {
	const rgba = text => { const n = text.match(/[\d.]+/g).map(Number); return [n[0], n[1], n[2], n[3] ?? 1]; };
	const light = c => { const [r, g, b] = c.slice(0, 3).map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
	const behind = e => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] === 1) return c; } return [255, 255, 255]; };
	const hard = new Set();
	for (const e of document.querySelectorAll("body *:not(svg *, option)")) {
		if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || !e.checkVisibility()) continue;
		const [a, b] = [light(rgba(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
		if ((a + 0.05) / (b + 0.05) < 4.5) hard.add(e.tagName + "." + e.className + " " + e.textContent.trim().slice(0, 20) + " " + ((a + 0.05) / (b + 0.05)).toFixed(2));
	}
	return [...hard];
})()`

// plots returns what is wrong with the plots of the page, of which there should be so
// many: no size, times that overlap, no text for those who do not see them, or a line whose
// contrast with what is behind it is less than 3 (WCAG 2.2, 1.4.11).
const plots = `(count => {
	const light = text => { const [r, g, b] = text.match(/[\d.]+/g).map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
	const all = document.querySelectorAll(".plot svg"), wrong = [];
	if (all.length !== count) wrong.push(all.length + " plots");
	for (const svg of all) {
		const box = svg.getBoundingClientRect(), title = svg.querySelector("title").textContent;
		const axis = svg.closest(".plot").querySelector(".xs");
		if (axis && axis.scrollWidth > axis.clientWidth) wrong.push(title + ": the times overlap");
		if (box.width < 100 || box.height < 25) wrong.push(title + ": " + box.width + " x " + box.height);
		if (!/^Latency of .* in the last (60 minutes|24 hours): lowest .* ms, usually .* ms, highest .* ms/.test(title)) wrong.push(title);
		const [a, b] = [light(getComputedStyle(svg.querySelector(".line")).stroke), light(getComputedStyle(svg.closest("section")).backgroundColor)].sort((x, y) => y - x);
		if ((a + 0.05) / (b + 0.05) < 3) wrong.push(title + ": contrast " + ((a + 0.05) / (b + 0.05)).toFixed(2));
	}
	return wrong;
})(%d)`

// step is something that a tab does.
type step = chromedp.Action[chromedp.Void]

// send sends a command to the browser.
func send[P any](c cdp.Command[P, cdp.Empty], p P) step {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, c, p)
		return err
	})
}

// into does something that has a value.
func into[T any](value *T, a chromedp.Action[T]) step {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) (err error) {
		*value, err = a(ctx, t)
		return err
	})
}

// shot writes a picture of the whole page into the directory SCREENSHOTS, if that is
// set in the environment.
func shot(name string) step {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		dir := os.Getenv("SCREENSHOTS")
		if dir == "" {
			return nil
		}
		png, err := chromedp.FullScreenshot(100)(ctx, t)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, name+".png"), png, 0o600)
	})
}

// tab does steps in a tab of its own, in which nothing may go wrong or be loaded from
// elsewhere than host.
func tab(t *testing.T, browser context.Context, host string, steps ...step) {
	t.Helper()
	ctx, closeTab := chromedp.NewContext(browser)
	defer closeTab()
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	var (
		mu     sync.Mutex
		wrong  []string
		loaded = make(map[string]bool)
	)
	if err := chromedp.Listen(ctx, func(event any) {
		mu.Lock()
		defer mu.Unlock()
		switch event := event.(type) {
		case *runtime.EventConsoleAPICalled:
			wrong = append(wrong, fmt.Sprintf("console: %s %v", event.Type, event.Args))
		case *runtime.EventExceptionThrown:
			wrong = append(wrong, "exception: "+event.ExceptionDetails.Text)
		case *log.EventEntryAdded:
			wrong = append(wrong, event.Entry.Text+" "+event.Entry.URL)
		case *network.EventRequestWillBeSent:
			if u, err := url.Parse(event.Request.URL); err != nil || u.Host != host {
				wrong = append(wrong, "loaded "+event.Request.URL)
			} else {
				loaded[u.Path] = true
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(ctx, 10*time.Minute)
	defer stop()
	enabled := []step{send(network.Enable, network.EnableParams{}), send(log.Enable, cdp.Empty{}), send(runtime.Enable, cdp.Empty{})}
	if err := chromedp.Do(ctx, append(enabled, steps...)...); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(wrong) > 0 || !loaded["/page.css"] {
		t.Errorf("Expected nothing to go wrong, got %q; loaded %v", wrong, loaded)
	}
}

// TestPageInBrowser shows the status page of the example in Chromium: with and without
// JavaScript, on a narrow screen, light and dark.
func TestPageInBrowser(t *testing.T) {
	chromium := program(t, "chromium", "the Debian package chromium")
	e := newExample(t)
	e.addNear()
	port := freePort(t)
	e.replace("        status  8053 ", "        status  "+port+" ")
	s := start(t, "-conf", e.path)
	s.waitFor(`Registered node "par1" by key`, 30*time.Second)
	s.waitFor(`Registered node "nyc1" by key`, 30*time.Second)
	host := "127.0.0.1:" + port
	open := func(path string) step {
		return chromedp.Steps(chromedp.Navigate("http://"+host+path), chromedp.WaitVisible(chromedp.CSS("section.block")))
	}

	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(chromium), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()))
	allocator, end := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(end)
	browser, quit := chromedp.NewContext(allocator)
	t.Cleanup(quit)
	if err := chromedp.Do(browser); err != nil {
		t.Fatal(err)
	}

	t.Run("refresh", func(t *testing.T) {
		var sections, lost int
		var at, later chromedp.AttributeResult
		clock := chromedp.CSS(".at time")
		tab(t, browser, host, open("/"), into(&at, chromedp.AttributeValue(clock, "datetime")),
			chromedp.Sleep(1100*time.Millisecond), // the page tells seconds
			into(new(any), chromedp.Evaluate[any](`main.replaceChildren(), 1`)),
			into(new(any), chromedp.Evaluate[any](`refresh().then(() => 1)`, chromedp.EvalAwaitPromise)),
			into(&sections, chromedp.Evaluate[int](`document.querySelectorAll("section.block").length`)),
			into(&lost, chromedp.Evaluate[int](`document.querySelectorAll(".at.lost").length`)),
			into(&later, chromedp.AttributeValue(clock, "datetime")))
		if sections != 3 || lost != 0 || at.Value >= later.Value {
			t.Errorf("Expected the state to be replaced, got %d sections, %d errors, %s after %s", sections, lost, later.Value, at.Value)
		}
	})
	t.Run("without JavaScript", func(t *testing.T) {
		var html string
		tab(t, browser, host, send(emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true}), chromedp.Navigate("http://"+host),
			into(&html, chromedp.OuterHTML(chromedp.CSS("html"))))
		for _, want := range []string{`<path class="land"`, `class="mark live`, "www.svc.gslb.example.org.", `http-equiv="refresh"`} {
			if !strings.Contains(html, want) {
				t.Errorf("Expected %q in the page, got %s", want, html)
			}
		}
	})
	t.Run("form", func(t *testing.T) {
		var note, where string
		tab(t, browser, host, open("/"), chromedp.SendKeys(chromedp.CSS(`input[name="address"]`), "127.0.2.10"), chromedp.Click(chromedp.CSS("form button")),
			chromedp.WaitVisible(chromedp.CSS(".block .note")), into(&where, chromedp.Location()), into(&note, chromedp.Text(chromedp.CSS(".block .note"))), shot("explain"))
		if !strings.Contains(where, "/explain?address=127.0.2.10") || !strings.HasPrefix(note, "nyc1 registered 127.0.2.0/24") {
			t.Errorf("Expected the explanation of the referral, got %q at %s", note, where)
		}
	})
	t.Run("search", func(t *testing.T) {
		var where, found string
		tab(t, browser, host, open("/block/b2"), chromedp.SendKeys(chromedp.CSS(`input[name="search"]`), "FRA\r"), chromedp.WaitVisible(chromedp.CSS(`input[value="fra"]`)),
			chromedp.Click(chromedp.CSS("table.list th a")), chromedp.WaitVisible(chromedp.CSS("table.servers")),
			into(&where, chromedp.Location()), into(&found, chromedp.Text(chromedp.CSS("table.servers tr.first th"))))
		if !strings.HasSuffix(where, "/block/b2?service=www.svc.gslb.example.org.") || !strings.HasPrefix(found, "fra") {
			t.Errorf("Expected the page of the service that has fra, got %q at %s", found, where)
		}
	})

	narrow := send(emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: 360, Height: 740, DeviceScaleFactor: 2, Mobile: true})
	dark := send(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}})
	for name, screen := range map[string]step{"light": chromedp.Steps(), "dark": dark, "narrow": narrow, "narrow dark": chromedp.Steps(narrow, dark)} {
		for title, page := range map[string]struct {
			path  string
			plots int
		}{
			"state": {"/", 8}, "explanation": {"/explain?address=127.0.1.10", 0},
			"service": {"/block/b2?service=www.svc.gslb.example.org.", 4}, "services": {"/block/b2?search=127.0.0.11", 1},
		} {
			t.Run(title+" "+name, func(t *testing.T) {
				var width, inner float64
				var isDark bool
				var hard, wrong []string
				tab(t, browser, host, screen, open(page.path), into(&wrong, chromedp.Evaluate[[]string](fmt.Sprintf(plots, page.plots))),
					into(&width, chromedp.Evaluate[float64](`document.documentElement.scrollWidth`)), into(&inner, chromedp.Evaluate[float64](`innerWidth`)),
					into(&isDark, chromedp.Evaluate[bool](`getComputedStyle(document.body).backgroundColor.match(/\d+/)[0] < 64`)),
					into(&hard, chromedp.Evaluate[[]string](contrasts)), shot(title+" "+name))
				if width > inner || strings.HasPrefix(name, "narrow") && inner != 360 {
					t.Errorf("Expected no scrolling to the side, got a page of %g on a screen of %g", width, inner)
				}
				if isDark != strings.Contains(name, "dark") {
					t.Errorf("Expected the page to be dark where that is preferred, got %v", isDark)
				}
				if len(hard) > 0 {
					t.Errorf("Expected texts that can be read, got %q", hard)
				}
				if len(wrong) > 0 {
					t.Errorf("Expected %d plots that can be seen and read, got %q", page.plots, wrong)
				}
			})
		}
	}
}
