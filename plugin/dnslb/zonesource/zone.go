package zonesource

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
	"weak"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/file/tree"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
)

// Zone is what a backend plugin has in one zone. It is immutable.
type Zone struct {
	SOA    *dns.SOA
	Names  map[string]*Name // in lower case, without those of zones below
	Signed bool             // it has signatures

	// Previous answers for a zone that the backend plugins do not have again
	// after a reload; nil: they have it.
	Previous plugin.Handler
	until    time.Time // end of use, if Previous is set

	version weak.Pointer[tree.Tree] // see backend.version
	backend *backend                // that has it; nil: Previous has it
	name    string
	aliases bool // it has DNAME records
}

// HTTPS returns the HTTPS records of a name in lower case, if a plugin would answer with
// just these now. That is certain only of a plugin like file, and where they are about
// the name itself: then there is nothing to add.
func (z *Zone) HTTPS(plugin string, name []byte) []HTTPS {
	n := z.Names[string(name)]
	if n == nil || n.https == nil || z.aliases || z.Previous != nil || z.backend == nil || !z.backend.answers(plugin, z.name, z.version) {
		return nil
	}
	return n.https
}

// Version returns a value that changes, by ==, when the plugin that has the zone begins to
// answer from another version, also before the next Poll.
func (z *Zone) Version() any {
	if z.backend == nil {
		return nil
	}
	return z.backend.version(z.name)
}

// Resumed reports whether the zone is that of the previous instance.
func (z *Zone) Resumed() bool { return z.Previous != nil }

// Addresses returns the addresses of a name in lower case.
func (z *Zone) Addresses(name string) []netip.Addr {
	if z == nil || z.Names[name] == nil {
		return nil
	}
	return z.Names[name].Addrs
}

// Name is an owner name of a zone.
type Name struct {
	Types            []uint16     // sorted
	Addrs            []netip.Addr // of hosts, in the order of the zone
	https            []HTTPS      // HTTPS records, if all have the name itself as target
	foreign          bool         // some HTTPS record has another target
	mailOrNameServer bool         // an NS or MX record points to it
}

// Ranks reports whether a name has more than one address in a family and is
// that of a service: name servers and mail servers must be reached at all of
// their addresses.
func (n *Name) Ranks() bool {
	v4 := 0
	for _, addr := range n.Addrs {
		if addr.Is4() {
			v4++
		}
	}
	return !n.mailOrNameServer && (v4 > 1 || len(n.Addrs)-v4 > 1)
}

// equal reports whether two zones hold the same. The order of addresses does not
// count: a plugin that has no file may send them in any order.
func (z *Zone) equal(other *Zone) bool {
	return z.SOA.String() == other.SOA.String() && z.Signed == other.Signed && maps.EqualFunc(z.Names, other.Names, (*Name).equal)
}

func (n *Name) equal(other *Name) bool {
	return n.mailOrNameServer == other.mailOrNameServer && slices.Equal(n.Types, other.Types) && len(n.Addrs) == len(other.Addrs) &&
		!slices.ContainsFunc(n.Addrs, func(addr netip.Addr) bool { return !slices.Contains(other.Addrs, addr) })
}

// readTransfer reads a transfer to its end, and checks that it begins with an SOA
// record.
func readTransfer(ch <-chan []dns.RR) ([]dns.RR, error) {
	var records []dns.RR
	for rrs := range ch {
		records = append(records, rrs...)
	}
	if len(records) == 0 {
		return nil, errors.New("transfer has no records")
	}
	if _, ok := records[0].(*dns.SOA); !ok {
		return nil, errors.New("transfer does not begin with an SOA record")
	}
	return records, nil
}

func newZone(zones plugin.Zones, zone string, soa *dns.SOA, records []dns.RR) *Zone {
	cuts := make(map[string]bool)
	for _, rr := range records {
		if owner := strings.ToLower(rr.Header().Name); rr.Header().Rrtype == dns.TypeNS && owner != zone {
			cuts[owner] = true
		}
	}
	z := &Zone{SOA: soa, Names: make(map[string]*Name)}
	for _, rr := range records {
		owner, rrtype := strings.ToLower(rr.Header().Name), rr.Header().Rrtype
		z.Signed = z.Signed || rrtype == dns.TypeRRSIG && owner == zone
		foreign := zones.Matches(owner) != zone // of another zone of the block
		glue := belowCut(cuts, zone, owner) || cuts[owner] && rrtype != dns.TypeNS && rrtype != dns.TypeDS
		if !foreign && !glue {
			z.add(owner, rr)
		}
	}
	for _, rr := range records {
		var target string
		switch rr := rr.(type) {
		case *dns.NS:
			target = rr.Ns
		case *dns.MX:
			target = rr.Mx
		}
		if n := z.Names[strings.ToLower(target)]; n != nil {
			n.mailOrNameServer = true
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

// add adds a record of an owner in lower case.
func (z *Zone) add(owner string, rr dns.RR) {
	n, ok := z.Names[owner]
	if !ok {
		n = new(Name)
		z.Names[owner] = n
	}
	if i, ok := slices.BinarySearch(n.Types, rr.Header().Rrtype); !ok {
		n.Types = slices.Insert(n.Types, i, rr.Header().Rrtype)
	}
	z.aliases = z.aliases || rr.Header().Rrtype == dns.TypeDNAME
	if https, ok := rr.(*dns.HTTPS); ok {
		n.addHTTPS(https)
	}
	if addr, ok := dnsmsg.Address(rr); ok && dnsmsg.IsHost(addr) && !slices.Contains(n.Addrs, addr) {
		n.Addrs = append(n.Addrs, addr)
	}
}
