// Package zonesource follows the zones that backend plugins have: the plugins
// after dnslb in a server block, such as file, auto, secondary and dynupdate.
//
// A zone is asked for again and again by a transfer inside the process. Its serial
// does not tell all changes: file reads a zone again with the same serial if it
// goes by the time of the file, and the serial of kubernetes counts seconds. Of
// file, auto and secondary another tree of records is another version. The zone of
// another plugin is compared as a whole, as often as that is cheap. A zone that
// fails stays for as long as a secondary may keep it; the zones of the
// previous instance stay until the backend plugins have them again.
package zonesource

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/coredns/coredns/plugin"
	clog "github.com/coredns/coredns/plugin/pkg/log"
	"github.com/coredns/coredns/plugin/transfer"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/plural"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
)

var log = clog.NewWithPlugin("dnslb")

const (
	// interval is the time between two polls.
	interval = 5 * time.Second
	// missingInterval is that time while a zone is missing.
	missingInterval = 250 * time.Millisecond
	// pauseFactor limits comparisons of whole zones to 1 % of the time.
	pauseFactor = 99
)

// LoadTime is how long a zone may be missing before the log says so, such as
// that of a secondary before its first transfer.
const LoadTime = 10 * time.Second

// Settings say which zones are followed.
type Settings struct {
	Zones    plugin.Zones          // of the server block; absolute, in lower case
	Cuts     bool                  // DNS-B delegates the zones to this node
	Backends []transfer.Transferer // in the order in which they are asked

	// Needed reports whether a service has no servers but the addresses in a
	// zone. A zone that no backend plugin has is missing only if it is needed.
	Needed func(zone string) bool
	// Report is called for each loaded zone with nil, and for each logged
	// failure with its error.
	Report func(err error)
}

// Source follows the zones of a server block. It has one caller at a time, but
// for Missing and Loaded. Use New.
type Source struct {
	settings Settings
	backends []*backend
	asked    []*backend // for zones; all of them but in a rehearsal
	zones    map[string]*Zone
	due      map[string]time.Time         // when a zone is compared as a whole
	failures map[string]*reminder.Failure // by zone
	unserved []string                     // zones, as found by the last Poll
	polled   bool                         // at least once

	mu      sync.Mutex
	missing []string
}

// New returns a Source that has no zone before its first Poll. It must be called
// before the backend plugins start.
func New(settings Settings) *Source {
	s := &Source{
		settings: settings,
		zones:    make(map[string]*Zone), due: make(map[string]time.Time), failures: make(map[string]*reminder.Failure),
	}
	for _, t := range settings.Backends {
		s.backends = append(s.backends, newBackend(t))
	}
	s.asked = s.backends
	for _, zone := range settings.Zones {
		s.failures[zone] = &reminder.Failure{Delay: LoadTime}
	}
	s.unserved = s.findUnserved()
	return s
}

// Zones returns the zones that backend plugins have, or had in the previous
// instance, by name.
func (s *Source) Zones() map[string]*Zone { return maps.Clone(s.zones) }

// Missing returns the zones that a backend plugin should have and does not have
// now. It is safe for concurrent use.
func (s *Source) Missing() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.missing
}

// Loaded reports whether no zone is missing. It is safe for concurrent use.
func (s *Source) Loaded() bool { return len(s.Missing()) == 0 }

// Wait returns how long to wait until the next Poll.
func (s *Source) Wait() time.Duration {
	if s.Loaded() {
		return interval
	}
	return missingInterval
}

// HasBackends reports whether there is a backend plugin.
func (s *Source) HasBackends() bool { return len(s.backends) > 0 }

// CanHave reports whether a backend plugin has a zone or may get it. The answer
// about a secondary changes when its zones have been transferred.
func (s *Source) CanHave(zone string) bool {
	return slices.ContainsFunc(s.backends, func(b *backend) bool { return b.canHave(zone) })
}

// Unserved reports whether no backend plugin will ever answer for names in a
// zone. Without backend plugins another plugin may, such as forward, unless the
// zones are cuts.
func (s *Source) Unserved(zone string) bool {
	if !s.HasBackends() {
		return s.settings.Cuts
	}
	return !s.CanHave(zone) && !s.encloses(zone)
}

// encloses reports whether a backend plugin has the names in a zone as a part of
// one that is no zone of the block. A cut is not a part of another zone.
func (s *Source) encloses(zone string) bool {
	return !s.settings.Cuts && slices.ContainsFunc(s.backends, func(b *backend) bool {
		return slices.ContainsFunc(b.zones, func(other string) bool {
			return dns.IsSubDomain(other, zone) && !slices.Contains(s.settings.Zones, other)
		})
	})
}

// ParentOnly reports whether backend plugins do not have a zone now, but one of
// the block that is above it.
func (s *Source) ParentOnly(zone string) bool {
	return s.zones[zone] == nil && slices.ContainsFunc(s.settings.Zones, func(other string) bool {
		return s.zones[other] != nil && dns.IsSubDomain(other, zone)
	})
}

func (s *Source) findUnserved() []string {
	var unserved []string
	for _, zone := range s.settings.Zones {
		if s.Unserved(zone) {
			unserved = append(unserved, zone)
		}
	}
	return unserved
}

// SignedZone returns a zone that was signed before it was loaded, "" if there is
// none. It is for setup, before the first Poll.
func (s *Source) SignedZone() string {
	for _, name := range s.settings.Zones {
		if z, err := transferZone(s.quiet(), s.settings.Zones, name, nil, true); err == nil && z.Signed {
			return name
		}
	}
	return ""
}

// Rehearse makes Poll ask only backend plugins that have no database, for a
// rehearsal of the start.
func (s *Source) Rehearse() { s.asked = s.quiet() }

// quiet returns the backend plugins that a transfer does not change: the first one
// makes dynupdate create its database. Dynupdate takes no signatures.
func (s *Source) quiet() []*backend {
	return slices.DeleteFunc(slices.Clone(s.backends), func(b *backend) bool { return b.dynupdate })
}

// Resume takes over the zones of the previous instance, and the handler that
// answers for them. Such a zone is used for as long as its SOA record lets a
// secondary use it without its primary (RFC 1035, section 3.3.13). That time
// begins anew: when a secondary reached its primary last is not known.
func (s *Source) Resume(zones map[string]*Zone, handler plugin.Handler) {
	for _, name := range s.settings.Zones {
		old := zones[name]
		if old == nil || !s.CanHave(name) {
			continue
		}
		z := *old
		if !z.Resumed() {
			z.Previous, z.until = handler, time.Now().Add(time.Duration(z.SOA.Expire)*time.Second)
		}
		s.zones[name] = &z
		s.failures[name].Delay = 0
	}
}

// Poll transfers the zones that have another version, and reports whether
// anything that the other methods return has changed.
func (s *Source) Poll() (changed bool) {
	if !s.HasBackends() {
		return false
	}
	var missing []string
	for _, zone := range s.settings.Zones {
		if s.zones[zone] == nil && !s.CanHave(zone) {
			continue
		}
		zoneChanged, complete := s.pollZone(zone)
		changed = changed || zoneChanged
		if !complete {
			missing = append(missing, zone)
		}
	}
	s.polled = true
	unserved := s.findUnserved()
	changed = changed || !slices.Equal(unserved, s.unserved)
	s.unserved = unserved

	s.mu.Lock()
	defer s.mu.Unlock()
	changed = changed || !slices.Equal(missing, s.missing)
	s.missing = missing
	return changed
}

// pollZone transfers one zone. It reports whether the zone has another version
// or ended, and whether there is nothing to wait for.
func (s *Source) pollZone(name string) (changed, complete bool) {
	old, failure := s.zones[name], s.failures[name]
	known := old
	if old != nil && (old.Resumed() || failure.Failing() && !old.Signed) {
		known = nil // it may be another version, whatever the serial
	}
	begin := time.Now()
	whole := !begin.Before(s.due[name])
	z, err := transferZone(s.asked, s.settings.Zones, name, known, whole)
	if whole {
		end := time.Now()
		s.due[name] = end.Add(pauseFactor * end.Sub(begin))
	}
	gone := errors.Is(err, errNoBackend) && !slices.ContainsFunc(s.backends, (*backend).loading)
	switch {
	case err == nil:
		s.load(name, z)
		return true, true
	case errors.Is(err, errUnchanged):
		if old.Signed {
			s.failSigned(name)
		}
		return false, true
	case old == nil:
		complete = gone && !s.settings.Needed(name)
		s.failMissing(name, complete, err)
		return false, complete
	case s.keeps(old, gone, err):
		s.failKept(name, old, err)
		return false, true
	}
	log.Errorf("Failed to transfer zone %q, no longer ranking its services: %v", name, err)
	s.settings.Report(err)
	delete(s.zones, name)
	*failure = reminder.Failure{Delay: LoadTime}
	return true, gone && !s.settings.Needed(name)
}

// keeps reports whether a zone is used though its transfer failed.
func (s *Source) keeps(z *Zone, gone bool, err error) bool {
	switch {
	case !z.Resumed():
		return !gone && !errors.Is(err, errExpired)
	case !s.polled:
		return true // backend plugins have just started
	}
	return !gone && time.Now().Before(z.until)
}

// load makes z the current version of a zone.
func (s *Source) load(name string, z *Zone) {
	s.zones[name] = z
	log.Infof("Loaded zone %q, serial %d: %s", name, z.SOA.Serial, plural.Of(len(z.Names), "name"))
	failure := s.failures[name]
	failure.Delay = 0
	if z.Signed {
		s.failSigned(name)
		return
	}
	failure.Recovered()
	s.settings.Report(nil)
}

func (s *Source) failSigned(name string) {
	if s.failures[name].Failed("signed") {
		log.Errorf("Zone %q is already signed, not ranking its services: load it unsigned, and sign it with 'dnssec' in the server block", name)
		s.settings.Report(errSigned)
	}
}

// failMissing notes that a zone cannot be loaded. If it is optional, services
// have servers without it.
func (s *Source) failMissing(name string, optional bool, err error) {
	failure := s.failures[name]
	if !failure.Failed("missing") {
		return
	}
	consequence := "server block not ready without it"
	if optional {
		consequence = "answering only for services that name their servers"
	}
	log.Errorf("Failed to load zone %q since %s, %s: %v", name, failure.Since().UTC().Format(time.RFC3339), consequence, err)
	s.settings.Report(err)
}

// failKept notes that the previous version of a zone is used.
func (s *Source) failKept(name string, z *Zone, err error) {
	failure := s.failures[name]
	switch {
	case !z.Resumed():
		if !failure.Failed("stale: " + err.Error()) {
			return
		}
		log.Errorf("Failed to transfer zone %q, keeping the previous version: %v", name, err)
	case s.polled:
		if !failure.Failed("resumed: " + err.Error()) {
			return
		}
		log.Errorf("Failed to transfer zone %q since the reload, keeping the previous version until %s: %v", name, z.until.UTC().Format(time.RFC3339), err)
	default:
		return // backend plugins have just started
	}
	s.settings.Report(err)
}
