package dnslb

import (
	"slices"

	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nsec"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// configureDNSSEC has the plugin dnssec of the server block (nil: none) sign
// denials. With a 'ds' line, the node registers the keys of dnssec at DNS-B.
func (d *DNSLB) configureDNSSEC(dnssec plugin.Handler, block corefile.Position) error {
	var err error
	if d.signer, err = nsec.New(dnssec, d.Zones); err != nil {
		return block.Errorf("%v", err)
	}
	if !d.sendDS {
		return nil
	}
	if d.signer == nil {
		return block.Errorf("'ds' needs 'dnssec': add 'dnssec' with a 'key file' line to this server block, or remove 'ds'")
	}
	d.ds = nil
	for _, zone := range d.Zones {
		keys, err := d.signer.Keys(zone)
		if err != nil {
			return block.Errorf("'ds': %v", err)
		}
		for _, key := range secureEntryPoints(keys) {
			d.ds = append(d.ds, registration.NewDS(key.ToDS(dns.SHA256)))
		}
	}
	return nil
}

// secureEntryPoints returns the keys that the parent zone has DS records of:
// those with the SEP flag or, if no key has it, all.
func secureEntryPoints(keys []*dns.DNSKEY) []*dns.DNSKEY {
	seps := slices.DeleteFunc(slices.Clone(keys), func(k *dns.DNSKEY) bool { return k.Flags&dns.SEP == 0 })
	if len(seps) == 0 {
		return keys
	}
	return seps
}

// typesOf returns the types that a name has in the zone with this SOA record. They
// are not known if a backend plugin cannot transfer the zone, or has another
// version of it since a moment ago.
func (d *DNSLB) typesOf(owner string, soa *dns.SOA) (types []uint16, known bool) {
	snap := d.snapshot.Load()
	n, exists := snap.lookup(owner)
	z, current := snap.zones[n.zone], snap.soas[n.zone]
	switch {
	case z == nil && !d.authoritative(snap, n.zone), current == nil, current.Serial != soa.Serial:
		return nil, false
	case !exists:
		return []uint16{dns.TypeNXNAME}, true
	}
	types = slices.Clone(n.types)
	for _, rrtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		if n.service.pool(rrtype) != nil {
			types = append(types, rrtype)
		}
	}
	if owner == n.zone {
		types = append(types, dns.TypeSOA, dns.TypeDNSKEY)
		if d.Node != "" || z != nil {
			types = append(types, dns.TypeNS)
		}
	}
	if n.service != nil { // hides a CNAME record and a delegation
		types = slices.DeleteFunc(types, func(rrtype uint16) bool {
			return rrtype == dns.TypeCNAME || owner != n.zone && (rrtype == dns.TypeNS || rrtype == dns.TypeDS)
		})
	}
	return types, true
}
