package dnslb

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/file"
	"github.com/coredns/coredns/plugin/secondary"
	"github.com/coredns/coredns/plugin/transfer"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
)

// zoneBehind is what the zone plugin of the block (file, auto, secondary,
// dynupdate) has in one zone. It is immutable.
type zoneBehind struct {
	soa   *dns.SOA
	names map[string]*zoneName // in lower case, those of zones below left out

	signed bool // it has signatures

	// Of the instance before, used while the plugin behind has not got it again.
	held  plugin.Handler // what answered for it there; nil: the plugin behind has it
	until time.Time
}

// resumed reports whether the zone is that of the instance before.
func (z *zoneBehind) resumed() bool { return z.held != nil }

// zoneName is an owner name of a zone.
type zoneName struct {
	types   []uint16     // sorted
	addrs   []netip.Addr // as in the zone
	pointed bool         // NS or MX records point here
}

// transferers returns the plugins behind dnslb in the block's chain that have
// zones, and whether there are no others.
func transferers(c *dnsserver.Config) (from []transfer.Transferer, only bool) {
	handlers := c.Handlers()
	only = true
	for _, h := range handlers[1+slices.IndexFunc(handlers, func(h plugin.Handler) bool { return h.Name() == pluginName }):] {
		if t, ok := h.(transfer.Transferer); ok {
			from = append(from, t)
		} else {
			only = false
		}
	}
	return from, only
}

// fixed returns the zones of a plugin that comes by no others while it runs, as
// auto does.
func fixed(t transfer.Transferer) (zones []string, ok bool) {
	switch t := t.(type) {
	case file.File:
		return t.Names, true
	case *file.File:
		return t.Names, true
	case *secondary.Secondary:
		if catalogs, ok := catalogsOf(t); !ok || len(catalogs) > 0 {
			return nil, false
		}
		return t.Names, true
	case dynupdate:
		return t.CacheBypassZones(), isDynupdate(t)
	}
	return nil, false
}

// catalogsOf returns the catalogs (RFC 9432) by which a secondary comes by zones.
// It does not tell of them itself, and another release may hide them principalState.
func catalogsOf(s *secondary.Secondary) (zones []string, ok bool) {
	catalogs := reflect.ValueOf(s).Elem().FieldByName("catalogZones")
	if catalogs.Kind() != reflect.Map || catalogs.Type().Key().Kind() != reflect.String {
		return nil, false
	}
	for _, zone := range catalogs.MapKeys() {
		zones = append(zones, zone.String())
	}
	return zones, true
}

// unread reports whether a secondary has not got a catalog yet: which zones it will
// have is not known.
func unread(t transfer.Transferer) bool {
	s, ok := t.(*secondary.Secondary)
	if !ok {
		return false
	}
	catalogs, _ := catalogsOf(s)
	return slices.ContainsFunc(catalogs, func(zone string) bool {
		at, z, ok := s.ZoneLookupFunc(zone)
		if !ok || at != zone || z == nil {
			return true
		}
		z.RLock()
		defer z.RUnlock()
		return z.SOA == nil
	})
}

// dynupdate is what the plugin of that name implements. Its package is not
// imported: whoever builds without it need not have its database.
type dynupdate interface {
	plugin.Handler
	transfer.Transferer
	CacheBypassZones() []string
}

func isDynupdate(t transfer.Transferer) bool {
	d, ok := t.(dynupdate)
	return ok && d.Name() == "dynupdate"
}

// errSameZone says that a zone has the serial that it had before.
var errSameZone = errors.New("the zone is the same")

// transferZone gets a zone, one of those of the block, from the first plugin that
// has it. The error is errSameZone if its serial is that of old, errExpired if it
// has expired where it is, transfer.ErrNotAuthoritative if no plugin has the zone.
func transferZone(from []transfer.Transferer, zones plugin.Zones, zone string, old *zoneBehind) (*zoneBehind, error) {
	serial := uint32(0)
	if old != nil {
		serial = old.soa.Serial
	}
	none := transfer.ErrNotAuthoritative
	for _, t := range from {
		if expired(t, zone) {
			none = errExpired
			continue
		}
		ch, err := t.Transfer(zone, serial)
		if errors.Is(err, transfer.ErrNotAuthoritative) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return readZone(zones, zone, ch, old)
	}
	return nil, none
}

// readZone reads a transfer to its end.
func readZone(zones plugin.Zones, zone string, ch <-chan []dns.RR, old *zoneBehind) (*zoneBehind, error) {
	var records []dns.RR
	for rrs := range ch {
		records = append(records, rrs...)
	}
	if len(records) == 0 {
		return nil, fmt.Errorf("zone %s is empty", zone)
	}
	soa, ok := records[0].(*dns.SOA)
	if !ok {
		return nil, fmt.Errorf("the transfer of zone %s does not begin with its SOA", zone)
	}
	// To who has serial 0 CoreDNS sends the whole zone each time.
	if old != nil && soa.Serial == old.soa.Serial {
		return nil, errSameZone
	}
	return newZone(zones, zone, soa, records), nil
}

func newZone(zones plugin.Zones, zone string, soa *dns.SOA, records []dns.RR) *zoneBehind {
	cuts := make(map[string]bool)
	for _, rr := range records {
		if owner := strings.ToLower(rr.Header().Name); rr.Header().Rrtype == dns.TypeNS && owner != zone {
			cuts[owner] = true
		}
	}
	z := &zoneBehind{soa: soa, names: make(map[string]*zoneName)}
	at := func(owner string) *zoneName {
		n, ok := z.names[owner]
		if !ok {
			n = new(zoneName)
			z.names[owner] = n
		}
		return n
	}
	for _, rr := range records {
		owner, rrtype := strings.ToLower(rr.Header().Name), rr.Header().Rrtype
		z.signed = z.signed || rrtype == dns.TypeRRSIG && owner == zone
		if zones.Matches(owner) != zone || belowCut(cuts, zone, owner) || cuts[owner] && rrtype != dns.TypeNS && rrtype != dns.TypeDS {
			continue // it is of another zone of the block, or glue
		}
		n := at(owner)
		if i, ok := slices.BinarySearch(n.types, rrtype); !ok {
			n.types = slices.Insert(n.types, i, rrtype)
		}
		n.add(dnsmsg.Address(rr))
	}
	for _, rr := range records {
		var target string
		switch rr := rr.(type) {
		case *dns.NS:
			target = rr.Ns
		case *dns.MX:
			target = rr.Mx
		}
		if n := z.names[strings.ToLower(target)]; n != nil {
			n.pointed = true
		}
	}
	return z
}

func belowCut(cuts map[string]bool, zone, owner string) bool {
	for owner != zone && owner != "." {
		if owner = dnsmsg.Parent(owner); cuts[owner] {
			return true
		}
	}
	return false
}

// add adds an address, unless it is none of a host.
func (n *zoneName) add(addr netip.Addr, ok bool) {
	if ok && dnsmsg.IsHost(addr) && !slices.Contains(n.addrs, addr) {
		n.addrs = append(n.addrs, addr)
	}
}

// choice reports whether a name has more than one address in a family, and is
// that of a service: name servers and mail servers are to be reached at all of
// their addresses.
func (n *zoneName) choice() bool {
	four := 0
	for _, addr := range n.addrs {
		if addr.Is4() {
			four++
		}
	}
	return !n.pointed && (four > 1 || len(n.addrs)-four > 1)
}
