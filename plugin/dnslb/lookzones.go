package dnslb

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/secondary"
	"github.com/coredns/coredns/plugin/transfer"

	"github.com/miekg/dns"
)

// lookZones gets the zones behind that have another serial.
func (s *sources) lookZones() (changed bool) {
	if len(s.behind) == 0 {
		return false
	}
	var missing []string
	for _, zone := range s.conf.Zones {
		if s.lacks(zone) {
			continue
		}
		other, there := s.lookZone(zone)
		changed = changed || other
		if !there {
			missing = append(missing, zone)
		}
	}
	s.asked = true
	s.mu.Lock()
	defer s.mu.Unlock()
	changed = changed || !slices.Equal(missing, s.missing)
	s.missing = missing
	return changed
}

// lacks reports whether no plugin behind will ever have a zone. Of plugins that
// have no zones of their own that is not known.
func (s *sources) lacks(zone string) bool {
	if len(s.behind) == 0 {
		return s.conf.Node != ""
	}
	return !slices.ContainsFunc(s.behind, func(t transfer.Transferer) bool {
		zones, ok := fixed(t)
		return !ok || slices.Contains(zones, zone)
	})
}

// encloses reports whether a plugin behind has what is in a zone as a part of one
// that is no zone of the block. To a node all of its zones are cuts.
func (s *sources) encloses(zone string) bool {
	return s.conf.Node == "" && slices.ContainsFunc(s.behind, func(t transfer.Transferer) bool {
		zones, ok := fixed(t)
		return ok && slices.ContainsFunc(zones, func(other string) bool {
			return dns.IsSubDomain(other, zone) && !slices.Contains(s.conf.Zones, other)
		})
	})
}

// lookZone gets one zone, and reports whether it is another one than before, and
// whether there is nothing to wait for.
func (s *sources) lookZone(zone string) (changed, there bool) {
	old := s.zones[zone]
	known := old
	if old != nil && (old.resumed() || s.told[zone] != "" && !old.signed) {
		known = nil // it may be another one with the serial of before
	}
	z, err := transferZone(s.behind, s.conf.Zones, zone, known)
	gone := errors.Is(err, transfer.ErrNotAuthoritative) && !slices.ContainsFunc(s.behind, unread)
	switch {
	case err == nil:
		s.zones[zone] = z
		log.Infof("Zone %s with serial %d has %d names", zone, z.soa.Serial, len(z.names))
		if z.signed {
			err = fmt.Errorf("%w, and its services are not ranked: load it unsigned, and sign it with 'dnssec' in the server block", errSigned)
		}
		s.noteZone(zone, err)
		return true, true
	case errors.Is(err, errSameZone):
		return false, true
	case old == nil:
		// Such as of a secondary before its first transfer.
		there = gone && !s.needs(zone)
		if s.told[zone] == "" && time.Since(s.began) >= firstRound {
			s.noteMissing(zone, err, there)
		}
		return false, there
	case gone && (!old.resumed() || s.asked):
		err = errors.New("the plugin behind does not have it any more")
	case old.resumed() && !s.asked, old.resumed() && time.Now().Before(old.until):
		if s.asked {
			s.noteZone(zone, fmt.Errorf("it stays as it was before the Corefile was loaded again, until %s: %w", old.until.UTC().Format(time.RFC3339), err))
		}
		return false, true
	case !old.resumed() && !errors.Is(err, errExpired):
		s.noteZone(zone, fmt.Errorf("it stays as it was: %w", err))
		return false, true
	}
	delete(s.zones, zone)
	s.noteZone(zone, fmt.Errorf("it is not used any more: %w", err))
	return true, gone && !s.needs(zone)
}

var (
	// errExpired is that a secondary has not reached its primary for too long (RFC
	// 1035, section 3.3.13).
	errExpired = errors.New("it has expired")
	// errSigned is that a zone has signatures: what is ranked would have none.
	errSigned = errors.New("it is signed already")
)

// expired reports whether a plugin holds a zone that has expired.
func expired(t transfer.Transferer, zone string) bool {
	s, ok := t.(*secondary.Secondary)
	if !ok {
		return false
	}
	at, z, ok := s.ZoneLookupFunc(zone)
	if !ok || at != zone || z == nil {
		return false
	}
	z.RLock()
	defer z.RUnlock()
	return z.Expired
}

// resumeZones takes over the zones of the instance before, with what answers for
// them there. They are used for as long as their SOA record lets a secondary use
// them that does not reach its primary. That begins anew: when a secondary
// reached it last is not known.
func (s *sources) resumeZones(zones map[string]*zoneBehind, held plugin.Handler) {
	for _, zone := range s.conf.Zones {
		old := zones[zone]
		if old == nil || len(s.behind) == 0 || s.lacks(zone) {
			continue
		}
		z := *old
		if !z.resumed() {
			z.held, z.until = held, time.Now().Add(time.Duration(z.soa.Expire)*time.Second)
		}
		s.zones[zone] = &z
	}
}

// needs reports whether there are services of a zone whose servers only the zone
// knows.
func (s *sources) needs(zone string) bool {
	i := s.inventory()
	return len(i.services) == 0 || slices.ContainsFunc(i.services, func(svc serviceConfig) bool {
		return svc.servers == nil && plugin.Zones(s.conf.Zones).Matches(svc.name) == zone
	})
}

// noteMissing tells of a zone that is not there after the time that it may take.
func (s *sources) noteMissing(zone string, err error, ready bool) {
	if errors.Is(err, transfer.ErrNotAuthoritative) {
		err = errors.New("no plugin behind in this server block has it")
	}
	text := "it is not there yet"
	if !ready {
		text += ", and this server is not ready without it"
	}
	s.noteZone(zone, fmt.Errorf("%s: %w", text, err))
}

// noteZone notes a zone, of which an error is news only when it is another one:
// a file is read again when it has changed, a zone is always asked for.
func (s *sources) noteZone(zone string, err error) {
	switch {
	case err == nil:
		delete(s.told, zone)
		countReload(s.conf.Zones[0], "zone", nil)
	case s.told[zone] != err.Error():
		s.told[zone] = err.Error()
		countReload(s.conf.Zones[0], "zone", err)
		log.Errorf("Zone %s: %v", zone, err)
	}
}
