package zonesource

import (
	"errors"
	"slices"
	"weak"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/auto"
	"github.com/coredns/coredns/plugin/file"
	"github.com/coredns/coredns/plugin/file/tree"
	"github.com/coredns/coredns/plugin/secondary"
	"github.com/coredns/coredns/plugin/transfer"

	"github.com/miekg/dns"
)

// backend is a plugin that has zones.
type backend struct {
	transfer.Transferer

	zones     []string // in its configuration
	fixed     bool     // it never gets other zones
	dynupdate bool
	secondary bool
	loaded    func(name string) *file.Zone // nil: the zones are not in the memory of a plugin like file
}

// newBackend must be called before the plugin starts: a running secondary
// changes its list of zones.
func newBackend(t transfer.Transferer) *backend {
	b := &backend{Transferer: t}
	switch t := t.(type) {
	case file.File:
		b.zones, b.fixed, b.loaded = t.Names, true, func(name string) *file.Zone { return t.Z[name] }
	case *file.File:
		b.zones, b.fixed, b.loaded = t.Names, true, func(name string) *file.Zone { return t.Z[name] }
	case auto.Auto:
		b.loaded = t.Zones.Zones
	case *secondary.Secondary:
		b.zones, b.secondary = slices.Clone(t.Names), true
		b.loaded = func(name string) *file.Zone {
			if found, z, ok := t.ZoneLookupFunc(name); ok && found == name {
				return z
			}
			return nil
		}
	case dynupdate:
		if t.Name() == "dynupdate" {
			b.zones, b.fixed, b.dynupdate = t.CacheBypassZones(), true, true
		}
	}
	return b
}

// dynupdate is implemented by the plugin of that name. Its package is not
// imported, so that a build without the plugin does not link its database.
type dynupdate interface {
	plugin.Handler
	transfer.Transferer
	CacheBypassZones() []string
}

// canHave reports whether the plugin has a zone or may get it.
func (b *backend) canHave(zone string) bool {
	switch {
	case b.fixed || slices.Contains(b.zones, zone):
		return slices.Contains(b.zones, zone)
	case b.secondary:
		return slices.ContainsFunc(b.zones, b.mayBeCatalog)
	}
	return true // such as auto, with the files of a directory
}

// loading reports whether the plugin is a secondary that has yet to transfer one
// of its zones. Such a zone may be a catalog.
func (b *backend) loading() bool {
	return b.secondary && slices.ContainsFunc(b.zones, func(name string) bool {
		loading := false
		b.view(name, func(z *file.Zone) { loading = z.SOA == nil })
		return loading
	})
}

// mayBeCatalog reports whether a zone lists other zones that the secondary gets
// (RFC 9432), or has yet to be transferred. Secondary does not export which of
// its zones are catalogs; they have a version property (section 4.2.1).
func (b *backend) mayBeCatalog(name string) bool {
	may := false
	b.view(name, func(z *file.Zone) {
		version, ok := z.Search("version." + name)
		may = z.SOA == nil || ok && len(version.Type(dns.TypeTXT)) > 0
	})
	return may
}

// expired reports whether the plugin is a secondary that has not reached the
// primary of a zone for too long.
func (b *backend) expired(name string) bool {
	expired := false
	b.view(name, func(z *file.Zone) { expired = z.Expired })
	return expired
}

// version identifies what a plugin like file has of a zone: it replaces the tree
// of records with each version, whatever the serial. It is the zero value for
// another plugin.
func (b *backend) version(name string) (v weak.Pointer[tree.Tree]) {
	b.view(name, func(z *file.Zone) { v = weak.Make(z.Tree) })
	return v
}

// answers reports whether a plugin is this one, is like file, and answers from a
// version of a zone now.
func (b *backend) answers(plugin, name string, version weak.Pointer[tree.Tree]) bool {
	h, ok := b.Transferer.(interface{ Name() string })
	return ok && h.Name() == plugin && version != (weak.Pointer[tree.Tree]{}) && b.version(name) == version && !b.expired(name)
}

// view calls f with a zone of a plugin like file under the lock of the zone.
func (b *backend) view(name string, f func(*file.Zone)) {
	if b.loaded == nil {
		return
	}
	z := b.loaded(name)
	if z == nil {
		return
	}
	z.RLock()
	defer z.RUnlock()
	f(z)
}

// transferZone gets a zone, if it is another version than old. The serial alone
// tells the version of a plugin that is not like file, unless the zone is to be
// read as a whole. The error is errUnchanged if it is the same version.
func (b *backend) transferZone(zones plugin.Zones, name string, old *Zone, whole bool) (*Zone, error) {
	version := b.version(name) // before the transfer: it may change meanwhile
	serial := uint32(0)        // to CoreDNS that is no serial: the whole zone
	if old != nil && version != (weak.Pointer[tree.Tree]{}) {
		if version == old.version {
			return nil, errUnchanged
		}
		old = nil
	} else if old != nil && !whole {
		serial = old.SOA.Serial
	}
	ch, err := b.Transfer(name, serial)
	if err != nil {
		return nil, err
	}
	records, err := readTransfer(ch)
	if err != nil {
		return nil, err
	}
	soa := records[0].(*dns.SOA)
	switch {
	case serial != 0 && soa.Serial == serial:
		return nil, errUnchanged
	case serial != 0 && len(records) == 1: // the serial went back
		return b.transferZone(zones, name, old, true)
	}
	z := newZone(zones, name, soa, records)
	z.version, z.backend, z.name = version, b, name
	if old != nil && z.equal(old) {
		return nil, errUnchanged
	}
	return z, nil
}

var (
	errUnchanged = errors.New("zone is unchanged")
	errNoBackend = errors.New("no backend plugin in this server block has the zone")
	// errExpired is about a secondary that has not reached its primary for too
	// long (RFC 1035, section 3.3.13).
	errExpired = errors.New("zone expired at its secondary")
	// errSigned is about a zone whose signatures do not cover ranked answers.
	errSigned = errors.New("zone is already signed")
)

// transferZone gets a zone from the first plugin that has it, see
// backend.transferZone. Zones are all of the server block. The error is
// errExpired if the zone expired where it is, errNoBackend if no plugin has it.
func transferZone(backends []*backend, zones plugin.Zones, name string, old *Zone, whole bool) (*Zone, error) {
	none := errNoBackend
	for _, b := range backends {
		if b.expired(name) {
			none = errExpired
			continue
		}
		z, err := b.transferZone(zones, name, old, whole)
		if !errors.Is(err, transfer.ErrNotAuthoritative) {
			return z, err
		}
	}
	return nil, none
}
