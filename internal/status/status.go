// Package status serves the state of the process over HTTP, as a page and as JSON:
// that of each server block of dnsb and dnslb, and explanations. Each plugin has the
// template of its part of the page; this package has what is around it.
//
// It is read-only, without secrets, and for the machine itself or for what the
// operator puts in front of it: there is no authentication.
package status

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coredns/caddy"
	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/filewatch"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reload"
)

var log = clog.NewWithPlugin("status")

// Version is that of the form of the answers. It grows when a field goes away or
// changes its meaning, not when one is added.
const Version = 1

const (
	// maxMaking is how many answers are made at a time: each has the state of all
	// server blocks. Sending one does not count, as a reader may be slow.
	maxMaking = 2
	// maxRequests is how many requests are made or sent at a time, each with its answer
	// in memory.
	maxRequests = 32
	// sendTime is how long a reader may take for an answer.
	sendTime = 30 * time.Second
)

// Block is a server block of a plugin.
type Block struct {
	Plugin, Zone string
	Node         string      // of the block; "": it is none
	Started      func() bool // what follows may be called
	State        func() any
	// StateAfter returns State with the services whose names come after one, in place of
	// the first ones. Nil: State has all.
	StateAfter func(service string) any
	// View returns what pages show instead of State, as the query of the URL asks. The
	// main page has no query, for which there is no error. Nil: the block has no pages
	// of its own.
	View func(query url.Values) (any, error)
	// Explain explains a name for the address of a resolver. It returns an error for
	// a name that is none of the block.
	Explain func(name string, address netip.Addr) ([]any, error)
	Names   func(most int) []string // that Explain explains, the first ones
	// History returns the past of a name. Nil: nothing is recorded.
	History func(name string) ([]any, error)
	Look    *Look
}

// File tells whether the files of a source are in force.
type File struct {
	Source  string    `json:"source"`             // such as map, services or admin
	Loaded  time.Time `json:"loaded_at,omitzero"` // last without an error
	InForce bool      `json:"in_force"`           // else they have an error, and the previous version is in force
}

// Files describes the files of some sources, in the order of the sources.
func Files(sources map[string]filewatch.Status) []File {
	files := make([]File, 0, len(sources))
	for _, source := range slices.Sorted(maps.Keys(sources)) {
		f := sources[source]
		files = append(files, File{source, f.Loaded, !f.Failed})
	}
	return files
}

// Property is the property of a plugin that gives the address.
func Property(c *caddy.Controller) corefile.Property {
	return corefile.Property{Name: "status", Usage: "status [ADDRESS:]PORT", Example: "status 8053", Parse: func(l corefile.Line) error {
		if len(l.Args) != 1 {
			return corefile.ErrUsage
		}
		address, err := parseAddress(l.Args[0])
		if err != nil {
			return err
		}
		return serve(c, address, l.At)
	}}
}

// parseAddress parses the argument of the line. A port alone is one of the loopback
// address.
func parseAddress(text string) (netip.AddrPort, error) {
	if port, err := strconv.ParseUint(text, 10, 16); err == nil && port > 0 {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port)), nil
	}
	address, err := netip.ParseAddrPort(text)
	if err != nil || address.Port() == 0 {
		return netip.AddrPort{}, fmt.Errorf("invalid address '%s': expected a port, or address and port such as 127.0.0.1:8053 or [::1]:8053", text)
	}
	return address, nil
}

// page is what one Corefile instance wants to be served.
type page struct {
	address netip.AddrPort // zero: nothing
	at      corefile.Position
	blocks  []Block
}

var servers = reload.Owner[netip.AddrPort, *server, *page]{
	New: func(address netip.AddrPort) *server {
		return &server{address: address, making: make(chan struct{}, maxMaking), requests: make(chan struct{}, maxRequests)}
	},
	Configure: func(s *server, want *page) error { return s.configure(want) },
	Close:     func(_ netip.AddrPort, s *server) { s.close() },
}

func (p *page) started() bool {
	return !slices.ContainsFunc(p.blocks, func(b Block) bool { return !b.Started() })
}

// pageKey is the key of the page of a Corefile.
type pageKey struct{}

// pageOf returns the page of the Corefile of c, and has it served from the start on
// if a block gives an address.
func pageOf(c *caddy.Controller) *page {
	holder := servers.Attach(c)
	p, ok := c.Get(pageKey{}).(*page)
	if !ok {
		p = new(page)
		c.Set(pageKey{}, p)
		c.OnStartup(func() error {
			if !p.address.IsValid() {
				return nil
			}
			_, err := servers.Hold(holder, p.address, p)
			return err
		})
	}
	return p
}

// Add adds a block to the state of the process. It is to be called in a setup
// function.
func Add(c *caddy.Controller, b Block) {
	p := pageOf(c)
	p.blocks = append(p.blocks, b)
}

// serve serves the state at an address, which all lines of a Corefile must have in
// common.
func serve(c *caddy.Controller, address netip.AddrPort, at corefile.Position) error {
	p := pageOf(c)
	if p.address.IsValid() && p.address != address {
		return fmt.Errorf("'status' has the address %s at %s: the process has one status, keep one line", p.address, p.at)
	}
	p.address, p.at = address, at
	return nil
}

// server is the HTTP server of an address. It outlives reloads.
type server struct {
	address netip.AddrPort
	http    *http.Server // nil: it does not listen yet
	done    chan struct{}

	making, requests chan struct{} // one for each that goes on

	page     atomic.Pointer[page] // of the youngest instance
	previous atomic.Pointer[page] // until the youngest instance has started; nil: none
}

// blocks returns what is served now: during a reload, that of the previous instance
// until all blocks have started.
func (s *server) blocks() []Block {
	p := s.page.Load()
	if p.started() {
		s.previous.Store(nil)
		return p.blocks
	}
	if previous := s.previous.Load(); previous != nil {
		return previous.blocks
	}
	return slices.DeleteFunc(slices.Clone(p.blocks), func(b Block) bool { return !b.Started() })
}

// configure makes p what is served, and begins to listen if that is new.
func (s *server) configure(p *page) error {
	if previous := s.page.Swap(p); previous != nil && previous != p && previous.started() {
		s.previous.Store(previous)
	}
	if s.http != nil {
		return nil
	}
	l, err := net.Listen("tcp", s.address.String())
	if err != nil {
		return fmt.Errorf("status: %w", err)
	}
	s.http = &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: sendTime,
		IdleTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10,
	}
	s.done = make(chan struct{})
	go func() { defer close(s.done); _ = s.http.Serve(l) }()
	return nil
}

// close ends the requests that are being answered.
func (s *server) close() {
	if s.http == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close()
	}
	<-s.done
}

// handler returns what answers requests. GET stands for HEAD, too.
func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.showState)
	mux.HandleFunc("GET /block/{id}", s.showBlock)
	mux.HandleFunc("GET /explain", s.showExplanations)
	mux.HandleFunc("GET /page.css", s.style)
	mux.HandleFunc("GET /page.js", file("page.js", "text/javascript; charset=utf-8"))
	mux.HandleFunc("GET /icon.svg", file("icon.svg", "image/svg+xml"))
	mux.HandleFunc("GET /status.json", s.status)
	mux.HandleFunc("GET /explain.json", s.explain)
	mux.HandleFunc("GET /history.json", s.history)
	return s.guard(mux)
}

// policy lets the page load what this server has, and nothing else.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// guard sets headers by which no browser shows or caches more than it should, and
// refuses requests by the name of another site, which a browser was made to send here
// (DNS rebinding).
func (s *server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", policy)
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		if !ownHost(r.Host) {
			fail(w, http.StatusMisdirectedRequest, "use the address of this server, or localhost, in the URL")
			return
		}
		if !enter(r.Context(), s.requests) {
			return
		}
		defer leave(s.requests)
		if !enter(r.Context(), s.making) {
			return
		}
		a := answer{header: h, code: http.StatusOK}
		func() {
			defer leave(s.making)
			next.ServeHTTP(&a, r)
		}()
		h.Set("Content-Length", strconv.Itoa(a.body.Len()))
		w.WriteHeader(a.code)
		_, _ = w.Write(a.body.Bytes())
	})
}

// enter waits for a place in slots. It returns false if ctx ends before.
func enter(ctx context.Context, slots chan struct{}) bool {
	select {
	case slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func leave(slots chan struct{}) { <-slots }

// answer is what a handler has written: it is sent when it is whole.
type answer struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

// Header implements the http.ResponseWriter interface.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements the http.ResponseWriter interface.
func (a *answer) WriteHeader(code int) { a.code = code }

// Write implements the http.ResponseWriter interface.
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }

// ownHost reports whether the Host header is an address or localhost.
func ownHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if host == "localhost" {
		return true
	}
	if n := len(host); n > 1 && host[0] == '[' && host[n-1] == ']' {
		host = host[1 : n-1]
	}
	_, err := netip.ParseAddr(host)
	return err == nil
}

// BlockState is the state of one server block.
type BlockState struct {
	Plugin string `json:"plugin"` // dnsb or dnslb
	Zone   string `json:"zone"`
	State  any    `json:"state"`
}

// State is the answer for /status.json.
type State struct {
	Version int          `json:"version"`
	At      time.Time    `json:"at"`
	Blocks  []BlockState `json:"blocks"` // as in the Corefile, those of a plugin together
}

func (s *server) status(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	zone := strings.ToLower(strings.TrimSuffix(query.Get("zone"), ".")) + "."
	out := State{Version: Version, At: time.Now(), Blocks: []BlockState{}}
	for _, b := range s.blocks() {
		switch after := query.Get("after"); {
		case query.Has("zone") && b.Zone != zone:
		case after != "" && b.StateAfter != nil:
			out.Blocks = append(out.Blocks, BlockState{b.Plugin, b.Zone, b.StateAfter(after)})
		default:
			out.Blocks = append(out.Blocks, BlockState{b.Plugin, b.Zone, b.State()})
		}
	}
	if query.Has("zone") && len(out.Blocks) == 0 {
		fail(w, http.StatusNotFound, "no server block with status has the zone "+pageText(zone))
		return
	}
	write(w, out)
}

// Explained is the explanation of one server block.
type Explained struct {
	Plugin      string `json:"plugin"`
	Zone        string `json:"zone"`
	Explanation any    `json:"explanation"`

	block Block
}

// Explanations is the answer for /explain.json.
type Explanations struct {
	Version      int         `json:"version"`
	Explanations []Explained `json:"explanations"`
}

func (s *server) explain(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	if query.Get("address") == "" {
		fail(w, http.StatusBadRequest, "expected /explain.json?name=NAME&address=ADDRESS")
		return
	}
	address, err := parseResolver(query.Get("address"))
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	explained, reasons := explain(s.blocks(), query.Get("name"), address)
	if len(explained) == 0 {
		fail(w, http.StatusNotFound, reasons...)
		return
	}
	write(w, Explanations{Version, explained})
}

// parseResolver parses the address of a resolver or client.
func parseResolver(text string) (netip.Addr, error) {
	address, err := netip.ParseAddr(strings.TrimSpace(text))
	if err != nil || address.Zone() != "" {
		return address, errors.New("the address is not that of a host, such as 192.0.2.1")
	}
	return address, nil
}

// maxExplainedNames is how many names of a block are explained if none is given.
const maxExplainedNames = 5

// explain explains a name, or the first names of each block if it is "". If there is
// no explanation, there are reasons.
func explain(blocks []Block, name string, address netip.Addr) (explained []Explained, reasons []string) {
	for _, b := range blocks {
		names := []string{name}
		if name == "" {
			names = b.Names(maxExplainedNames)
		}
		for _, name := range names {
			all, err := b.Explain(name, address)
			if err != nil {
				if reason := b.Zone + ": " + err.Error(); !slices.Contains(reasons, reason) {
					reasons = append(reasons, reason)
				}
				continue
			}
			for _, e := range all {
				explained = append(explained, Explained{b.Plugin, b.Zone, e, b})
			}
		}
	}
	if len(explained)+len(reasons) == 0 {
		reasons = []string{"there is no name to explain yet"}
	}
	return explained, reasons
}

// Recorded is the past of a name in one server block.
type Recorded struct {
	Plugin  string `json:"plugin"`
	Zone    string `json:"zone"`
	Node    string `json:"node,omitempty"`
	History any    `json:"history"`
}

// Histories is the answer for /history.json.
type Histories struct {
	Version   int        `json:"version"`
	At        time.Time  `json:"at"`
	Histories []Recorded `json:"histories"`
}

func (s *server) history(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("name")
	if name == "" {
		fail(w, http.StatusBadRequest, "expected /history.json?name=NAME")
		return
	}
	out := Histories{Version, time.Now(), nil}
	var reasons []string
	for _, b := range s.blocks() {
		if b.History == nil {
			continue
		}
		all, err := b.History(name)
		if err != nil {
			reasons = append(reasons, b.Zone+": "+err.Error())
		}
		for _, h := range all {
			out.Histories = append(out.Histories, Recorded{b.Plugin, b.Zone, b.Node, h})
		}
	}
	if len(out.Histories) == 0 {
		if len(reasons) == 0 {
			reasons = []string{"no server block has a history"}
		}
		fail(w, http.StatusNotFound, reasons...)
		return
	}
	write(w, out)
}

func write(w http.ResponseWriter, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(text, '\n'))
}

// fail answers with an object of errors.
func fail(w http.ResponseWriter, code int, reasons ...string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(struct {
		Version int      `json:"version"`
		Errors  []string `json:"errors"`
	}{Version, reasons})
}
