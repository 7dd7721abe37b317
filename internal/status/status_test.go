package status

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"

	"github.com/coredns/caddy"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/testport"
)

func TestParseAddress(t *testing.T) {
	for in, want := range map[string]string{
		"8053": "127.0.0.1:8053", "192.0.2.1:8053": "192.0.2.1:8053", "[::1]:8053": "[::1]:8053", ":8053": "", "0": "", "70000": "", "192.0.2.1": "", "localhost:8053": "", "192.0.2.1:0": "", "": "",
	} {
		got, err := parseAddress(in)
		if want == "" && err == nil || want != "" && (err != nil || got.String() != want) {
			t.Errorf("%q: Expected %q, got %s, %v", in, want, got, err)
		}
	}
}

// TestOneAddressForTheProcess checks that a second address is an error, and the same
// one again is not.
func TestOneAddressForTheProcess(t *testing.T) {
	c := caddy.NewTestController("dns", "")
	one, two := netip.MustParseAddrPort("127.0.0.1:8053"), netip.MustParseAddrPort("127.0.0.1:8054")
	for _, address := range []netip.AddrPort{one, one} {
		if err := serve(c, address, corefile.Position{File: "Corefile", Line: 3}); err != nil {
			t.Errorf("Expected no error, got: %v", err)
		}
	}
	if err := serve(c, two, corefile.Position{File: "Corefile", Line: 9}); err == nil || !strings.Contains(err.Error(), "127.0.0.1:8053 at Corefile:3: the process has one status") {
		t.Errorf("Expected an error with the first line, got: %v", err)
	}
}

var testLook = NewLook(fstest.MapFS{
	"page.html": {Data: []byte(`{{define "state"}}<p class="state">{{.State}}</p>{{end}}{{define "explanation"}}<p class="why">{{text .}}</p>{{end}}`)},
	"page.css":  {Data: []byte(".state { color: red }\n")},
}, nil)

// testPage has two blocks, of which the second one explains nothing.
func testPage(state string, started bool) *page {
	return &page{blocks: []Block{
		{
			Plugin: "dnsb", Zone: "gslb.example.org.", Started: func() bool { return started }, State: func() any { return state }, Look: testLook,
			Explain: func(name string, address netip.Addr) ([]any, error) {
				return []any{name + " for " + address.String()}, nil
			},
			Names: func(int) []string { return []string{"www.svc.gslb.example.org."} },
		},
		{
			Plugin: "dnslb", Zone: "svc.gslb.example.org.", Node: "par1", Started: func() bool { return true }, State: func() any { return map[string]int{"up": 3} }, Look: testLook,
			Explain: func(string, netip.Addr) ([]any, error) { return nil, errors.New("no service") },
			Names:   func(int) []string { return nil },
			History: func(name string) ([]any, error) {
				if name != "www" {
					return nil, errors.New("no such service")
				}
				return []any{"past of " + name}, nil
			},
		},
	}}
}

func TestAnswers(t *testing.T) {
	s := servers.New(netip.MustParseAddrPort("127.0.0.1:8053"))
	s.page.Store(testPage("fine", true))
	handler := s.handler()
	for _, tc := range []struct {
		method, target, host string
		code                 int
		want                 string
	}{
		{"GET", "/status.json", "127.0.0.1:8053", 200, `"blocks":[{"plugin":"dnsb","zone":"gslb.example.org.","state":"fine"},{"plugin":"dnslb","zone":"svc.gslb.example.org.","state":{"up":3}}]`},
		{"GET", "/status.json", "localhost:8053", 200, `{"version":1,`},
		{"GET", "/status.json", "[::1]:8053", 200, `{"version":1,`},
		{"GET", "/status.json", "[::1]", 200, `{"version":1,`},
		{"GET", "/status.json", "rebound.example.org", 421, "use the address of this server"},
		{"GET", "/status.json", "localhost.example.org:8053", 421, "use the address of this server"},
		{"GET", "/explain.json?name=www.svc.gslb.example.org&address=192.0.2.1", "127.0.0.1", 200, `{"version":1,"explanations":[{"plugin":"dnsb","zone":"gslb.example.org.","explanation":"www.svc.gslb.example.org for 192.0.2.1"}]}`},
		{"GET", "/explain.json?address=192.0.2.1", "127.0.0.1", 200, `"explanation":"www.svc.gslb.example.org. for 192.0.2.1"`},
		{"GET", "/explain.json?name=www", "127.0.0.1", 400, "expected /explain.json?name=NAME"},
		{"GET", "/history.json?name=www", "127.0.0.1", 200, `"histories":[{"plugin":"dnslb","zone":"svc.gslb.example.org.","node":"par1","history":"past of www"}]}`},
		{"GET", "/history.json?name=oops", "127.0.0.1", 404, `"errors":["svc.gslb.example.org.: no such service"]`},
		{"GET", "/history.json", "127.0.0.1", 400, "expected /history.json?name=NAME"},
		{"GET", "/explain.json?name=www&address=oops", "127.0.0.1", 400, "not that of a host"},
		{"GET", "/explain.json?name=www&address=fe80::1%25eth0", "127.0.0.1", 400, "not that of a host"},
		{"POST", "/status.json", "127.0.0.1", 405, ""},
		{"GET", "/x", "127.0.0.1", 404, ""},
	} {
		r := httptest.NewRequest(tc.method, tc.target, nil)
		r.Host = tc.host
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != tc.code || !strings.Contains(w.Body.String(), tc.want) {
			t.Errorf("%s %s at %s: Expected %d and %q, got %d and %s", tc.method, tc.target, tc.host, tc.code, tc.want, w.Code, w.Body)
		}
		for header, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Access-Control-Allow-Origin": ""} {
			if got := w.Header().Get(header); got != want {
				t.Errorf("%s: Expected %s %q, got %q", tc.target, header, want, got)
			}
		}
	}
	s.page.Store(&page{blocks: testPage("", true).blocks[1:]})
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/explain.json?name=www&address=192.0.2.1", nil)
	r.Host = "127.0.0.1"
	handler.ServeHTTP(w, r)
	if w.Code != 404 || !strings.Contains(w.Body.String(), `"errors":["svc.gslb.example.org.: no service"]`) {
		t.Errorf("Expected the reasons, got %d and %s", w.Code, w.Body)
	}
}

// TestServerOutlivesReload checks that another page is served at the same address
// without a gap, and that nothing is served after the end.
func TestServerOutlivesReload(t *testing.T) {
	address := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(testport.Free(t))) // #nosec G115 -- a port
	s := servers.New(address)
	get := func() (string, error) {
		r, err := http.Get("http://" + address.String() + "/status.json")
		if err != nil {
			return "", err
		}
		defer r.Body.Close()
		text, err := io.ReadAll(r.Body)
		return string(text), err
	}
	for _, state := range []string{"one", "two"} {
		if err := s.configure(testPage(state, true)); err != nil {
			t.Fatal(err)
		}
		text, err := get()
		var got State
		if err != nil || json.Unmarshal([]byte(text), &got) != nil || got.Version != Version || got.Blocks[0].State != state {
			t.Errorf("Expected the state %q, got %s, %v", state, text, err)
		}
	}
	if err := s.configure(testPage("three", false)); err != nil {
		t.Fatal(err)
	}
	if text, err := get(); err != nil || !strings.Contains(text, `"two"`) {
		t.Errorf("Expected the previous state until the next instance has started, got %s, %v", text, err)
	}
	if err := s.configure(testPage("four", false)); err != nil {
		t.Fatal(err)
	}
	if text, err := get(); err != nil || !strings.Contains(text, `"two"`) {
		t.Errorf("Expected the last state that has started, got %s, %v", text, err)
	}
	fresh := servers.New(address)
	fresh.page.Store(testPage("one", false))
	if blocks := fresh.blocks(); len(blocks) != 1 || blocks[0].Plugin != "dnslb" {
		t.Errorf("Expected the blocks that have started alone, got %+v", blocks)
	}
	if err := servers.New(address).configure(testPage("", true)); err == nil {
		t.Error("Expected an error for an address that is in use")
	}
	s.close()
	if text, err := get(); err == nil {
		t.Errorf("Expected nothing to be served after the end, got %s", text)
	}
}

// slowReader is a client that takes nothing before it is told to.
type slowReader struct {
	*httptest.ResponseRecorder
	take chan struct{}
}

func (s slowReader) Write(b []byte) (int, error) {
	<-s.take
	return s.ResponseRecorder.Write(b)
}

// TestSlowReaders checks that readers who do not take their answers keep nobody else
// from his, up to a bound.
func TestSlowReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := servers.New(netip.MustParseAddrPort("127.0.0.1:8053"))
		s.page.Store(testPage("fine", true))
		handler := s.handler()
		request := func() *http.Request {
			r := httptest.NewRequestWithContext(t.Context(), "GET", "/status.json", nil)
			r.Host = "127.0.0.1:8053"
			return r
		}
		take, sent := make(chan struct{}), make(chan *httptest.ResponseRecorder, maxRequests)
		for range maxRequests - 1 {
			go func() {
				w := slowReader{httptest.NewRecorder(), take}
				handler.ServeHTTP(w, request())
				sent <- w.ResponseRecorder
			}()
		}
		synctest.Wait() // all of them write
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, request())
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "fine") {
			t.Errorf("Expected an answer beside slow readers, got %d %s", w.Code, w.Body)
		}

		go handler.ServeHTTP(slowReader{httptest.NewRecorder(), take}, request())
		synctest.Wait()
		more := make(chan *httptest.ResponseRecorder, 1)
		go func() {
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, request())
			more <- w
		}()
		synctest.Wait()
		select {
		case <-more:
			t.Errorf("Expected no more than %d requests at a time", maxRequests)
		default:
		}
		close(take)
		if w := <-more; w.Code != http.StatusOK {
			t.Errorf("Expected an answer when others have theirs, got %d", w.Code)
		}
		for range maxRequests - 1 {
			if w := <-sent; w.Code != http.StatusOK || w.Header().Get("Content-Length") != strconv.Itoa(w.Body.Len()) {
				t.Errorf("Expected slow readers to get their answers, got %d with %d bytes", w.Code, w.Body.Len())
			}
		}
	})
}
