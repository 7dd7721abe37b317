package dnslb

import (
	"slices"

	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/nsec"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// secure makes use of dnssec, the plugin of that name in the block or nil: for
// denials and, with a 'ds' line, for the keys that DNS-B is to know.
func (d *DNSLB) secure(dnssec plugin.Handler, block corefile.Position) error {
	var err error
	if d.signer, err = nsec.New(dnssec, d.Zones); err != nil {
		return block.Errorf("%v", err)
	}
	if !d.states {
		return nil
	}
	if d.signer == nil {
		return block.Errorf("'ds' tells DNS-B the keys of dnssec, and there is none in this server block: add 'dnssec' with a 'key file' line, or remove 'ds'")
	}
	d.ds = nil
	for _, zone := range d.Zones {
		keys, err := d.signer.Keys(zone)
		if err != nil {
			return block.Errorf("'ds': %v", err)
		}
		for _, key := range entryPoints(keys) {
			d.ds = append(d.ds, registration.NewDS(key.ToDS(dns.SHA256)))
		}
	}
	return nil
}

// entryPoints returns the keys that a parent names: those with the SEP flag or,
// if none has it, all.
func entryPoints(keys []*dns.DNSKEY) []*dns.DNSKEY {
	seps := slices.DeleteFunc(slices.Clone(keys), func(k *dns.DNSKEY) bool { return k.Flags&dns.SEP == 0 })
	if len(seps) == 0 {
		return keys
	}
	return seps
}

// types returns the types of a name, and whether they are known: what a plugin
// behind has that cannot transfer its zone is not, nor what one has that has got
// another version of it just now.
func (d *DNSLB) types(owner string, soa *dns.SOA) ([]uint16, bool) {
	t := d.snapshot.Load()
	n, exists := t.lookup(owner)
	switch ours := t.soas[n.zone]; {
	case t.zones[n.zone] == nil && !d.alone(t, n.zone) || ours == nil || ours.Serial != soa.Serial:
		return nil, false
	case !exists:
		return []uint16{dns.TypeNXNAME}, true
	}
	types := slices.Clone(n.types)
	for _, rrtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		if n.service.pool(rrtype) != nil {
			types = append(types, rrtype)
		}
	}
	if owner == n.zone {
		types = append(types, dns.TypeSOA, dns.TypeDNSKEY)
		if d.Node != "" || t.zones[n.zone] != nil {
			types = append(types, dns.TypeNS)
		}
	}
	if n.service != nil { // hides an alias and a delegation
		types = slices.DeleteFunc(types, func(rrtype uint16) bool {
			return rrtype == dns.TypeCNAME || owner != n.zone && (rrtype == dns.TypeNS || rrtype == dns.TypeDS)
		})
	}
	return types, true
}
