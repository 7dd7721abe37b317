package dnslb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

const (
	// pullEvery is how often a deputy looks by itself: the news of a view may be
	// lost. It bounds one look as well.
	pullEvery = 30 * time.Second
	// lookupTime is how long what DNS-B told of a node is used, unless the node
	// does not answer there: as long as resolvers use it.
	lookupTime = 5 * time.Minute
	// maxViewSize and maxViewRecords bound a transfer: 100,000 servers in both
	// families take a third.
	maxViewSize    = 64 << 20
	maxViewRecords = 200_000
)

// errNoNode is that DNS-B says that there is no such node.
var errNoNode = errors.New("DNS-B knows no such node: is its name right, and is it registered?")

// errTooSoon is that no DNS-B can be asked before this node is registered, which
// is told elsewhere.
var errTooSoon = errors.New("this node is not registered yet")

// peer is what DNS-B knows of a node.
type peer struct {
	addresses []netip.Addr
	prefixes  []registration.Prefix // of resolvers
}

// find asks the DNS-Bs about a node, one after the other.
func (r *registrar) find(ctx context.Context, node string) (peer, error) {
	var failed error
	for _, s := range r.all() {
		p, err := s.find(ctx, node)
		if err == nil {
			return p, nil
		}
		if failed == nil || errors.Is(failed, errNoNode) {
			failed = err
		}
	}
	return peer{}, cmp.Or(failed, errTooSoon)
}

// find asks DNS-B about a node.
func (s *session) find(ctx context.Context, node string) (peer, error) {
	s.mu.Lock()
	zone := s.zone
	s.mu.Unlock()
	if zone == "" {
		return peer{}, errTooSoon
	}
	var p peer
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeAPL} {
		r, err := s.ask(ctx, registration.Name(node, zone), qtype)
		switch {
		case err != nil:
			return peer{}, fmt.Errorf("DNS-B %s: %w", s.dnsb, err)
		case r.Rcode == dns.RcodeNameError:
			return peer{}, errNoNode
		case r.Rcode != dns.RcodeSuccess:
			return peer{}, fmt.Errorf("DNS-B %s answers %s", s.dnsb, dns.RcodeToString[r.Rcode])
		}
		if err := p.add(r.Answer); err != nil {
			return peer{}, fmt.Errorf("DNS-B %s: %w", s.dnsb, err)
		}
	}
	if len(p.addresses) == 0 {
		return peer{}, errNoNode
	}
	// A list that is too long for one message is in parts.
	for part, before := 0, -1; part < registration.MaxParts && before < len(p.prefixes) && (part > 0 || len(p.prefixes) == 0); part++ {
		before = len(p.prefixes)
		r, err := s.ask(ctx, registration.PartName(part, node, zone), dns.TypeAPL)
		if err == nil {
			err = p.add(r.Answer)
		}
		if err != nil {
			return peer{}, fmt.Errorf("DNS-B %s: %w", s.dnsb, err)
		}
	}
	return p, nil
}

func (p *peer) add(records []dns.RR) error {
	for _, rr := range records {
		switch rr := rr.(type) {
		case *dns.A:
			if addr, ok := netip.AddrFromSlice(rr.A.To4()); ok {
				p.addresses = append(p.addresses, addr)
			}
		case *dns.AAAA:
			if addr, ok := netip.AddrFromSlice(rr.AAAA); ok {
				p.addresses = append(p.addresses, addr)
			}
		case *dns.APL:
			prefixes, err := registration.PrefixesOf(rr)
			if err != nil {
				return err
			}
			p.prefixes = append(p.prefixes, prefixes...)
		}
	}
	return nil
}

// contact is another node, as one goroutine deals with it.
type contact struct {
	node string
	peer
	asked    time.Time // DNS-B
	failing  time.Time // since when; zero if all is well
	reminded time.Time
	due      bool // it is to be told of a view
}

// each asks DNS-B where the node is, if that is not known well enough, and tries
// its addresses until one does.
func (c *contact) each(ctx context.Context, find func(context.Context, string) (peer, error), port string, do func(address string) error) error {
	if c.addresses == nil || !c.failing.IsZero() || time.Since(c.asked) > lookupTime {
		p, err := find(ctx, c.node)
		switch {
		case err == nil:
			c.peer, c.asked = p, time.Now()
		case c.addresses == nil || errors.Is(err, errNoNode):
			return err
		}
	}
	var failed error
	for i, addr := range c.addresses {
		err := do(net.JoinHostPort(addr.String(), port))
		if err == nil {
			c.addresses = slices.Concat(c.addresses[i:], c.addresses[:i]) // the next time it is first
			return nil
		}
		failed = errors.Join(failed, fmt.Errorf("%s: %w", addr, err))
	}
	return failed
}

// note logs that something cannot be done: when it has lasted for half a minute,
// since nodes that start together do not find each other at once, and every ten
// minutes from then on.
func (c *contact) note(err error, text string) {
	now := time.Now()
	switch {
	case err == nil:
		if !c.reminded.IsZero() {
			log.Infof("No longer: %s", text)
		}
		c.failing, c.reminded = time.Time{}, time.Time{}
		return
	case errors.Is(err, errTooSoon):
		return
	case c.failing.IsZero():
		c.failing = now
	}
	if now.Sub(c.failing) < pullEvery || now.Sub(c.reminded) < remindAfter {
		return
	}
	c.reminded = now
	log.Warningf("%s, since %s, still trying: %v", text, c.failing.UTC().Format(time.RFC3339), err)
}

// pull gets the view of one node again and again, in one goroutine, as long as
// there is one that can be used.
type pull struct {
	sharing *sharing
	contact
	place  int
	ctx    context.Context // the lifetime of its goroutine
	cancel context.CancelFunc
	woken  chan struct{} // capacity 1

	view     *view                 // in use; guarded by the lock of sharing
	prefixes []registration.Prefix // whose resolvers it is used for; likewise
}

func newPull(s *sharing, node string, place int) *pull {
	p := &pull{sharing: s, contact: contact{node: node}, place: place, woken: make(chan struct{}, 1)}
	p.ctx, p.cancel = context.WithCancel(s.ctx)
	return p
}

// wake makes it look now.
func (p *pull) wake() {
	select {
	case p.woken <- struct{}{}:
	default:
	}
}

func (p *pull) run() {
	defer p.end()
	told := time.Now()
	failures := 0
	for {
		err := p.look()
		if p.ctx.Err() != nil {
			return
		}
		failures++
		if err == nil {
			failures = 0
		}
		p.note(err, "Node "+p.sharing.config().Node+" cannot get the measurements of "+p.node+", for which it stands in")
		left := time.Duration(0)
		if p.view != nil {
			left = time.Until(p.view.made.Add(viewTime))
		}
		if left <= 0 {
			if errors.Is(err, errNoNode) || err != nil && time.Since(told) > publishEvery {
				return // it tells when there is something to get
			}
			p.use(nil) // it is cut off from its servers, or there was none yet
			left = pullEvery
		}
		if failures > 0 {
			left = min(left, backoff(failures))
		}
		select {
		case <-p.ctx.Done():
			return
		case <-p.woken:
			told = time.Now()
		case <-time.After(min(left, pullEvery)):
		}
	}
}

// end stops using the view.
func (p *pull) end() {
	p.cancel()
	p.use(nil)
	p.sharing.mu.Lock()
	defer p.sharing.mu.Unlock()
	delete(p.sharing.pulls, p.node)
}

// use makes v the view that is used, none if it is nil.
func (p *pull) use(v *view) {
	s := p.sharing
	s.mu.Lock()
	defer s.mu.Unlock()
	began, ended := p.view == nil && v != nil, p.view != nil && v == nil
	moved := began || ended || !reflect.DeepEqual(p.prefixes, p.peer.prefixes)
	if v == nil && !ended {
		return
	}
	p.view, p.prefixes = v, p.peer.prefixes
	s.use(moved)
	switch {
	case began:
		log.Infof("%s: answering the resolvers of %s by its measurements: %d prefixes, %d addresses of servers", s.conf.Node, p.node, len(p.prefixes), len(v.targets))
	case ended:
		log.Infof("%s: no longer answering the resolvers of %s by its measurements", s.conf.Node, p.node)
	}
}

// look gets the view if there is another one.
func (p *pull) look() error {
	ctx, cancel := context.WithTimeout(p.ctx, pullEvery)
	defer cancel()
	conf, result := p.sharing.config(), "unchanged"
	zone := viewZone(p.node, conf.Zones[0])
	var got *view
	err := p.each(ctx, p.sharing.find, conf.port, func(address string) error {
		serial, err := askSerial(ctx, zone, conf.viewKey, address)
		if err != nil || p.view != nil && p.view.serial == serial {
			return err
		}
		got, err = transferView(ctx, p.node, zone, conf.viewKey, address)
		return err
	})
	switch {
	case p.ctx.Err() != nil:
		return err
	case errors.Is(err, errNoNode):
		result = "unknown"
	case err != nil:
		result = "failed"
	case got != nil && time.Since(got.made) < viewTime:
		result = "new"
		p.use(got)
	case p.view != nil && !reflect.DeepEqual(p.prefixes, p.peer.prefixes):
		p.use(p.view)
	}
	viewPulls.WithLabelValues(conf.Node, p.node, result).Inc()
	return err
}

// askSerial asks a node for the serial of its view.
func askSerial(ctx context.Context, zone string, key tsigKey, address string) (uint32, error) {
	r, err := askNode(ctx, new(dns.Msg).SetQuestion(zone, dns.TypeSOA), key, address)
	if err != nil {
		return 0, err
	}
	for _, rr := range r.Answer {
		if soa, ok := rr.(*dns.SOA); ok && dns.CanonicalName(soa.Hdr.Name) == zone {
			return soa.Serial, nil
		}
	}
	return 0, fmt.Errorf("it has no zone %s", zone)
}

// askNode asks another node over TCP, signed, and checks what comes back.
func askNode(ctx context.Context, m *dns.Msg, key tsigKey, address string) (*dns.Msg, error) {
	m.RecursionDesired = false
	m.SetTsig(key.name, key.algorithm, fudge, time.Now().Unix())
	client := &dns.Client{Net: "tcp", Timeout: exchangeTime, TsigSecret: map[string]string{key.name: key.secret}}
	r, _, err := client.ExchangeContext(ctx, m, address)
	if err != nil && (r == nil || r.Rcode != dns.RcodeNotAuth) { // the signature of a NOTAUTH need not verify
		return nil, err
	}
	t := r.IsTsig()
	if t != nil && r.Rcode == dns.RcodeNotAuth {
		switch t.Error {
		case dns.RcodeBadKey, dns.RcodeBadSig:
			return nil, fmt.Errorf("it has another 'view-key' than %s here: all nodes need the same name and secret", key.name)
		case dns.RcodeBadTime:
			return nil, fmt.Errorf("clocks differ by %s: set the time of both machines", skew(t))
		}
	}
	if r.Rcode != dns.RcodeSuccess {
		return nil, fmt.Errorf("it answers %s: compare the zones, 'deputy' and 'view-key' of both", dns.RcodeToString[r.Rcode])
	}
	if t == nil {
		return nil, errors.New("its reply is not signed")
	}
	return r, nil
}

// transferView gets a view by AXFR.
func transferView(ctx context.Context, node, zone string, key tsigKey, address string) (*view, error) {
	ctx, cancel := context.WithTimeout(ctx, pullEvery)
	defer cancel()
	conn, err := (&net.Dialer{Timeout: exchangeTime}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	t := &dns.Transfer{
		Conn:        &dns.Conn{Conn: &limitedConn{Conn: conn, left: maxViewSize}},
		ReadTimeout: exchangeTime, WriteTimeout: exchangeTime,
		TsigSecret: map[string]string{key.name: key.secret},
	}
	m := new(dns.Msg).SetAxfr(zone)
	m.SetTsig(key.name, key.algorithm, fudge, time.Now().Unix())
	reader := newViewReader(node, zone, time.Now())
	messages, err := t.In(m, address)
	if err != nil {
		return nil, err
	}
	var failed error
	records := 0
	for message := range messages {
		if failed != nil {
			continue // so that its goroutine ends
		}
		failed = message.Error
		records += len(message.RR)
		if failed == nil && records > maxViewRecords {
			failed = fmt.Errorf("its view has more than %d records", maxViewRecords)
		}
		for i := 0; i < len(message.RR) && failed == nil; i++ {
			failed = reader.add(message.RR[i])
		}
		if failed != nil {
			conn.Close()
		}
	}
	if failed != nil {
		return nil, failed
	}
	return reader.end()
}

// limitedConn fails when more than so many bytes were read.
type limitedConn struct {
	net.Conn
	left int
}

func (c *limitedConn) Read(b []byte) (int, error) {
	if c.left <= 0 {
		return 0, fmt.Errorf("its view has more than %d bytes: %w", maxViewSize, io.ErrShortBuffer)
	}
	n, err := c.Conn.Read(b)
	c.left -= n
	return n, err
}
