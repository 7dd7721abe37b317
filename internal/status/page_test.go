package status

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/status/pagetest"
)

// get returns the answer of the handler to a request as a browser of this machine
// sends it.
func get(t *testing.T, s *server, method, target string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	r.Host = "127.0.0.1:8053"
	w := httptest.NewRecorder()
	s.handler().ServeHTTP(w, r)
	return w
}

func TestPage(t *testing.T) {
	s := servers.New(netip.MustParseAddrPort("127.0.0.1:8053"))
	s.page.Store(testPage("fine", true))
	w := get(t, s, "GET", "/")
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("Expected a page, got %d %v", w.Code, w.Header())
	}
	if got := pagetest.Texts(t, w.Body.String(), "p", "state"); len(got) != 2 || got[0] != "fine" || got[1] != "map[up:3]" {
		t.Errorf("Expected the states of both blocks, got %q", got)
	}
	if got := pagetest.Texts(t, w.Body.String(), "section", "block"); len(got) != 2 || !strings.Contains(got[1], "par1 · svc.gslb.example.org.") {
		t.Errorf("Expected the sections of both blocks, got %q", got)
	}
	for _, n := range pagetest.Elements(t, w.Body.String()) {
		if n.Data == "script" && (pagetest.Attribute(n, "src") != "/page.js" || n.FirstChild != nil) || n.Data == "style" || pagetest.Attribute(n, "style") != "" {
			t.Errorf("Expected no script or style in the page, as the policy forbids it, got <%s %v>", n.Data, n.Attr)
		}
		for _, name := range []string{"src", "href", "action"} {
			if target := pagetest.Attribute(n, name); target != "" && (!strings.HasPrefix(target, "/") || strings.HasPrefix(target, "//")) {
				t.Errorf("Expected nothing from elsewhere, got %s=%q of <%s>", name, target, n.Data)
			}
		}
	}

	w = get(t, s, "GET", "/explain?address=192.0.2.1&name=www.example.org")
	if got := pagetest.Texts(t, w.Body.String(), "p", "why"); len(got) != 1 || got[0] != "www.example.org for 192.0.2.1" {
		t.Errorf("Expected the explanation, got %q", got)
	}
	if got := pagetest.Texts(t, get(t, s, "GET", "/explain?address=+192.0.2.1+&name=").Body.String(), "p", "why"); len(got) != 1 || got[0] != "www.svc.gslb.example.org. for 192.0.2.1" {
		t.Errorf("Expected the explanation of the first names, got %q", got)
	}
	for target, want := range map[string]string{"/explain?address=oops": "the address is not that of a host, such as 192.0.2.1", "/explain?name=www": "the address is not that of a host, such as 192.0.2.1"} {
		if got := pagetest.Texts(t, get(t, s, "GET", target).Body.String(), "p", "note bad"); len(got) != 1 || got[0] != want {
			t.Errorf("%s: Expected %q, got %q", target, want, got)
		}
	}
	s.page.Store(&page{blocks: testPage("", true).blocks[1:]})
	if got := pagetest.Texts(t, get(t, s, "GET", "/explain?address=192.0.2.1&name=www").Body.String(), "p", "note bad"); len(got) != 1 || got[0] != "svc.gslb.example.org.: no service" {
		t.Errorf("Expected the reason, got %q", got)
	}
	if got := pagetest.Texts(t, get(t, s, "GET", "/explain?address=192.0.2.1").Body.String(), "p", "note bad"); len(got) != 1 || got[0] != "there is no name to explain yet" {
		t.Errorf("Expected the reason, got %q", got)
	}
}

// TestPagesOfBlock checks that a block with a View shows what the query of the page asks,
// and nothing else of the process.
func TestPagesOfBlock(t *testing.T) {
	s := servers.New(netip.MustParseAddrPort("127.0.0.1:8053"))
	p := testPage("fine", true)
	p.blocks[1].Look = NewLook(fstest.MapFS{"page.html": {Data: []byte(
		`{{define "state"}}<p class="state">main: {{.State}}</p>{{end}}{{define "view"}}<p class="state">{{.ID}}: {{.State}}</p>{{end}}{{define "explanation"}}{{end}}`)}}, nil)
	p.blocks[1].View = func(query url.Values) (any, error) {
		if query.Get("service") == "oops" {
			return nil, errors.New("oops <b> is no service")
		}
		return fmt.Sprint(query == nil, query["service"]), nil
	}
	s.page.Store(p)
	for target, want := range map[string]string{"/": "fine main: true []", "/block/b2": "b2: false []", "/block/b2?service=www": "b2: false [www]"} {
		w := get(t, s, "GET", target)
		if got := strings.Join(pagetest.Texts(t, w.Body.String(), "p", "state"), " "); w.Code != http.StatusOK || got != want {
			t.Errorf("%s: Expected %q, got %d, %q", target, want, w.Code, got)
		}
	}
	for target, want := range map[string]string{
		"/block/b2?service=oops": "oops <b> is no service",
		"/block/b1":              "there is no such page: since a reload, the server blocks may be others",
		"/block/b3":              "there is no such page: since a reload, the server blocks may be others",
	} {
		w := get(t, s, "GET", target)
		if got := strings.Join(pagetest.Texts(t, w.Body.String(), "p", "note bad"), " "); w.Code != http.StatusNotFound || got != want {
			t.Errorf("%s: Expected status 404, %q, got %d, %q", target, want, w.Code, got)
		}
	}
}

// TestPageIsReadOnly checks that no method but GET and HEAD is answered, and what all
// answers have in their headers.
func TestPageIsReadOnly(t *testing.T) {
	s := servers.New(netip.MustParseAddrPort("127.0.0.1:8053"))
	s.page.Store(testPage("fine", true))
	for _, target := range []string{"/", "/explain", "/explain?address=192.0.2.1", "/page.css", "/page.js", "/icon.svg", "/status.json"} {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"} {
			w := get(t, s, method, target)
			want := http.StatusMethodNotAllowed
			if method == "GET" || method == "HEAD" {
				want = http.StatusOK
			}
			if w.Code != want {
				t.Errorf("%s %s: Expected %d, got %d", method, target, want, w.Code)
			}
			for header, want := range map[string]string{
				"Content-Security-Policy": "default-src 'none'", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
				"Referrer-Policy": "no-referrer", "Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
			} {
				if got := w.Header().Get(header); !strings.HasPrefix(got, want) {
					t.Errorf("%s %s: Expected %s %q, got %q", method, target, header, want, got)
				}
			}
			if got := w.Header().Get("Content-Security-Policy"); strings.Contains(got, "unsafe") || strings.Contains(got, "http:") || strings.Contains(got, "*") {
				t.Errorf("Expected a policy without exceptions, got %q", got)
			}
		}
	}
	if got := get(t, s, "GET", "/page.css").Body.String(); strings.Count(got, ".state { color: red }") != 1 {
		t.Errorf("Expected the style of the plugin once, got %q", got[max(0, len(got)-200):])
	}
}

// TestPageEscapesTexts checks that texts from outside make no elements, attributes or
// control characters, wherever they appear, and that they are bounded.
func TestPageEscapesTexts(t *testing.T) {
	s := servers.New(netip.MustParseAddrPort("127.0.0.1:8053"))
	look := NewLook(fstest.MapFS{"page.html": {Data: []byte(
		`{{define "state"}}<p class="state" title="{{text .State}}">{{text .State}} {{badge "bad" .State}}</p>{{end}}{{define "explanation"}}<p class="why">{{text .}}</p>{{end}}`)}}, nil)
	block := func(text string) *page {
		return &page{blocks: []Block{{
			Plugin: "dnsb", Zone: text, Node: text, Started: func() bool { return true }, State: func() any { return text }, Look: look,
			Explain: func(name string, _ netip.Addr) ([]any, error) { return []any{name + text}, nil },
			Names:   func(int) []string { return []string{text} },
		}}}
	}
	query := func(text string) string {
		r := httptest.NewRequest("GET", "/explain", nil)
		q := r.URL.Query()
		q.Set("address", "192.0.2.1")
		q.Set("name", text)
		return "/explain?" + q.Encode()
	}
	for _, text := range pagetest.Hostile {
		for _, target := range []string{"/", query(text), "/explain?address=" + strings.TrimPrefix(query(text), "/explain?address=192.0.2.1&name=")} {
			s.page.Store(block("harmless"))
			want := pagetest.Shape(t, get(t, s, "GET", target).Body.String())
			s.page.Store(block(text))
			w := get(t, s, "GET", target)
			if got := pagetest.Shape(t, w.Body.String()); !slices.Equal(got, want) {
				t.Errorf("%.40q at %.60s: Expected the elements %q, got %q", text, target, want, got)
			}
			pagetest.CheckClean(t, w.Body.String(), 20_000)
		}
	}
}

// TestConcurrentPages reads all pages while the instance changes.
func TestConcurrentPages(t *testing.T) {
	s := servers.New(netip.MustParseAddrPort("127.0.0.1:8053"))
	s.page.Store(testPage("fine", true))
	var running sync.WaitGroup
	for _, target := range []string{"/", "/explain?address=192.0.2.1", "/page.css", "/status.json"} {
		for range 4 {
			running.Go(func() {
				for range 20 {
					s.page.Store(testPage("changed", true))
					if w := get(t, s, "GET", target); w.Code != http.StatusOK {
						t.Errorf("%s: Expected an answer, got %d", target, w.Code)
					}
				}
			})
		}
	}
	running.Wait()
}

func TestWords(t *testing.T) {
	now := time.Now()
	for _, tc := range []struct{ got, want string }{
		{roughly(0), "0 s"}, {roughly(-89 * time.Second), "89 s"}, {roughly(90 * time.Second), "2 min"}, {roughly(time.Hour), "60 min"}, {roughly(36 * time.Hour), "36 h"}, {roughly(72 * time.Hour), "3 days"},
		{percent(0), "0 %"}, {percent(0.0001), "< 0.1 %"}, {percent(0.0123), "1.2 %"}, {percent(0.5), "50 %"}, {percent(0.9999), "99 %"}, {percent(1), "100 %"},
		{number(7), "7"}, {count(1, "prefix"), "1 prefix"}, {count(uint64(1234), "prefix"), "1,234 prefixes"}, {number(1234), "1,234"}, {number(123), "123"}, {number(uint64(1234567)), "1,234,567"},
		{string(bar(0.5)), `<svg class="bar" aria-hidden="true"><rect width="50.0%" height="100%"/></svg>`}, {string(ago(time.Time{})), "never"},
		{string(in(now.Add(-time.Hour))), string(ago(now.Add(-time.Hour)))},
	} {
		if tc.got != tc.want {
			t.Errorf("Expected %q, got %q", tc.want, tc.got)
		}
	}
	if _, err := Badge("oops", ""); err == nil {
		t.Error("Expected an error for an unknown kind of badge")
	}
}
