package zonesource

import (
	"errors"
	"slices"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/file"
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
	secondary *secondary.Secondary // nil: another plugin
}

// newBackend must be called before the plugin starts: a running secondary
// changes its list of zones.
func newBackend(t transfer.Transferer) *backend {
	b := &backend{Transferer: t}
	switch t := t.(type) {
	case file.File:
		b.zones, b.fixed = t.Names, true
	case *file.File:
		b.zones, b.fixed = t.Names, true
	case *secondary.Secondary:
		b.zones, b.secondary = slices.Clone(t.Names), t
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
	case b.secondary != nil:
		return slices.ContainsFunc(b.zones, b.mayBeCatalog)
	}
	return true // such as auto, with the files of a directory
}

// loading reports whether the plugin is a secondary that has yet to transfer one
// of its zones. Such a zone may be a catalog.
func (b *backend) loading() bool {
	return b.secondary != nil && slices.ContainsFunc(b.zones, func(name string) bool {
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

// view calls f with a zone of a secondary under the lock of the zone.
func (b *backend) view(name string, f func(*file.Zone)) {
	if b.secondary == nil {
		return
	}
	found, z, ok := b.secondary.ZoneLookupFunc(name)
	if !ok || found != name || z == nil {
		return
	}
	z.RLock()
	defer z.RUnlock()
	f(z)
}

var (
	errSameSerial = errors.New("zone has the same serial")
	errNoBackend  = errors.New("no backend plugin in this server block has the zone")
	// errExpired is about a secondary that has not reached its primary for too
	// long (RFC 1035, section 3.3.13).
	errExpired = errors.New("zone expired at its secondary")
	// errSigned is about a zone whose signatures do not cover ranked answers.
	errSigned = errors.New("zone is already signed")
)

// transferZone gets a zone from the first plugin that has it. Zones are all of
// the server block. The error is errSameSerial if its serial is that of old,
// errExpired if the zone expired where it is, errNoBackend if no plugin has it.
func transferZone(backends []*backend, zones plugin.Zones, name string, old *Zone) (*Zone, error) {
	serial := uint32(0)
	if old != nil {
		serial = old.SOA.Serial
	}
	none := errNoBackend
	for _, b := range backends {
		if b.expired(name) {
			none = errExpired
			continue
		}
		ch, err := b.Transfer(name, serial)
		if errors.Is(err, transfer.ErrNotAuthoritative) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return readZone(zones, name, ch, old)
	}
	return nil, none
}
