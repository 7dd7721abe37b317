// Package fastpath answers simple queries over UDP in batches, from the tables that
// the plugin chain of CoreDNS would use.
//
// CoreDNS binds its sockets with SO_REUSEPORT. This package adds sockets to the
// same address, one for each core, and has the kernel distribute the datagrams: what
// looks like a simple query comes here, all else to CoreDNS as ever (classifier.go).
// Simple queries of the zones of a plugin are parsed (query.go) and answered in place
// by its Answerer. Whatever is not certain is handed over to the server of CoreDNS
// (handover.go), so that a client gets the same answer on either way.
//
// That the answers are the same is checked all the time: now and then the chain
// answers a query instead, and if the answer differs from the one here by a single
// byte, though nothing has changed meanwhile, the fast path switches itself off
// (compare_linux.go).
package fastpath

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reload"
	"github.com/coredns-dnslb/coredns-dnslb/internal/setupcheck"
)

var log = clog.NewWithPlugin("fastpath")

// Answerer answers simple queries of the zones of a server block. It is called by
// several goroutines at a time.
type Answerer interface {
	// Answer writes the reply to a query into out and returns its length. The reply
	// is the one that the chain makes, byte for byte. Not ok: the chain has to make
	// it. Answer does not wait.
	Answer(q *Query, out []byte) (n int, ok bool)
	// Basis returns what the reply to a query comes from now. After a change it is
	// another value, by ==, and never one from before again.
	Basis(q *Query) any
}

// Block is a server block that wants the fast path.
type Block struct {
	Plugin   string // whose Answerer it is
	Answerer Answerer
	Off      string   // the line of the block that is against it; "": none
	Gates    []string // handlers of the plugin that let simple queries pass
}

// Property is the property of a plugin that switches the fast path off. It sets off to
// the line, for Block.Off.
func Property(off *string) corefile.Property {
	return corefile.Property{Name: "fast-path", Usage: "fast-path off", Parse: func(l corefile.Line) error {
		if len(l.Args) != 1 || l.Args[0] != "off" {
			return corefile.ErrUsage
		}
		*off = l.Property + " off"
		return nil
	}}
}

// Enable has the simple queries of the server block of c answered by the fast path,
// if nothing stands against it. It is to be called in a setup function.
func Enable(c *caddy.Controller, b Block) {
	in := instanceOf(c)
	cfg := dnsserver.GetConfig(c)
	previous := cfg.UDPDecorateWriterFunc
	cfg.UDPDecorateWriterFunc = func(s *dnsserver.Server) dns.DecorateWriter {
		go func() { // CoreDNS does not read its socket before this function returns
			enlargeReceiveBuffers(s.Addr)
			in.serve(s)
		}()
		if previous == nil {
			return nil
		}
		return previous(s)
	}
	setupcheck.Note(c, func() string { _, text := b.admit(c); return text })
	c.OnStartup(func() error {
		sites, text := b.admit(c)
		log.Info(text)
		return in.add(sites)
	})
}

// admit returns the zones that the block may answer for, and says whether it may and where, or why not.
func (b Block) admit(c *caddy.Controller) (sites siteMap, text string) {
	sites, obstacle := b.sites(c)
	names := strings.Join(c.ServerBlockKeys, ", ")
	if obstacle != "" {
		return nil, fmt.Sprintf("Disabled the fast path of %s for %s, leaving all queries to the plugin chain: %s", b.Plugin, names, obstacle)
	}
	return sites, fmt.Sprintf("Enabled the fast path of %s for %s: simple queries over UDP pass by the plugin chain", b.Plugin, names)
}

// zones maps the zones that a server of CoreDNS has to their Answerers. It is
// immutable once it is served.
type zones map[string]*zone

// siteMap has the zones of servers by the address of the server.
type siteMap map[string]zones

// zone is a zone of a server; nil: the chain answers all its queries.
type zone struct {
	answerer Answerer
	counts   *counts // nil: without *prometheus*
}

// instance has the sites of all server blocks of one Corefile.
type instance struct {
	holder *reload.Holder

	mu    sync.Mutex
	sites siteMap
}

// site is what a listener serves.
type site struct {
	server *dnsserver.Server // nil: CoreDNS has not started it yet
	zones  zones
}

// listeners owns the listeners, by address.
var listeners = reload.Owner[string, *listener, site]{
	New:       newListener,
	Configure: (*listener).configure,
	Close:     func(_ string, l *listener) { l.close() },
}

type instanceKey struct{}

func instanceOf(c *caddy.Controller) *instance {
	if in, ok := c.Get(instanceKey{}).(*instance); ok {
		return in
	}
	in := &instance{holder: listeners.Attach(c), sites: make(siteMap)}
	c.Set(instanceKey{}, in)
	return in
}

// add adds the sites of a server block, and holds their listeners, so that a reload
// keeps those that are open. A zone without Answerer may get one later.
func (in *instance) add(sites siteMap) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	for addr, zs := range sites {
		all := in.sites[addr]
		if all == nil {
			all = make(zones)
			in.sites[addr] = all
		}
		for name, z := range zs {
			if all[name] == nil {
				all[name] = z
			}
		}
		if _, err := listeners.Hold(in.holder, addr, site{}); err != nil {
			return err
		}
	}
	return nil
}

// serve begins to answer the simple queries of a server of CoreDNS, which is about
// to read its socket. If the instance has ended meanwhile, it holds nothing.
func (in *instance) serve(s *dnsserver.Server) {
	in.mu.Lock()
	served := in.sites[s.Addr]
	in.mu.Unlock()
	if served == nil {
		return
	}
	if err := listeners.Update(in.holder, s.Addr, site{s, served}); err != nil {
		log.Warningf("Failed to open the fast path at %s, leaving all queries to the plugin chain: %v", s.Addr, errors.Join(err, listeners.Drop(in.holder, s.Addr)))
	}
}
