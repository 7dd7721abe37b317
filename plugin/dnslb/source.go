package dnslb

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/transfer"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/zonesource"
)

const (
	// lookSources is how often files and the zones behind are looked at.
	lookSources = 5 * time.Second
	// lookUnloaded is how often while a zone is not there yet.
	lookUnloaded = 250 * time.Millisecond
	// lookAgain is after how long a file that has changed is taken as written.
	lookAgain = time.Second
)

// sources are where servers and services come from besides the Corefile: the
// services file, the zones of the plugin behind, and the admin file. One
// goroutine follows them; before it starts, setup reads them.
type sources struct {
	conf      *config
	zones     *zonesource.Source
	zonesOnly bool // all plugins after dnslb are backend plugins
	admin     *adminFile
	file      servicesFile

	overrides overrideSchedule
	unknown   []string // services without a server
	hiding    []string // services at whose name the zone has a CNAME record or a delegation
	services  int      // how many there were last
}

func newSources(conf *config) *sources {
	s := &sources{
		conf: conf, file: conf.file, admin: conf.admin, services: -1,
		overrides: newOverrideSchedule(conf.prefix()),
	}
	if s.admin == nil {
		s.admin = noAdminFile()
	}
	s.file.fits = s.servable
	s.setBackends(nil, false)
	return s
}

// setBackends sets the backend plugins, and whether all plugins after dnslb are
// backend plugins.
func (s *sources) setBackends(backends []transfer.Transferer, only bool) {
	s.zonesOnly = only
	s.zones = zonesource.New(zonesource.Settings{
		Zones: s.conf.Zones, Cuts: s.conf.Node != "", Backends: backends, Needed: s.needsZone,
		Report: func(err error) { countReload(s.conf.Zones[0], "zone", err) },
	})
}

// backendsAfter returns the backend plugins after dnslb in the chain of a server
// block, and whether there are no other plugins after dnslb.
func backendsAfter(c *dnsserver.Config) (backends []transfer.Transferer, only bool) {
	handlers := c.Handlers()
	i := slices.IndexFunc(handlers, func(h plugin.Handler) bool { return h.Name() == pluginName })
	only = true
	for _, h := range handlers[i+1:] {
		if t, ok := h.(transfer.Transferer); ok {
			backends = append(backends, t)
		} else {
			only = false
		}
	}
	return backends, only
}

// needsZone reports whether there are services of a zone whose servers only the
// zone knows.
func (s *sources) needsZone(zone string) bool {
	i := s.inventory()
	return len(i.services) == 0 || slices.ContainsFunc(i.services, func(svc serviceConfig) bool {
		return svc.servers == nil && plugin.Zones(s.conf.Zones).Matches(svc.name) == zone
	})
}

// check returns an error if there will never be a service, or one of them never
// has a server.
func (s *sources) check(block corefile.Position) error {
	i := s.inventory()
	if zone := s.zones.SignedZone(); zone != "" {
		return block.Errorf("zone %q is already signed, and ranked answers would have no signature: load it unsigned, and sign it with 'dnssec' in this server block", zone)
	}
	if s.zones.HasBackends() {
		if len(i.services) == 0 && !slices.Contains(s.conf.probes, "") {
			return block.Errorf("this server block has no unnamed latencyprobe: add one, or 'service NAME probe NAME' lines")
		}
	} else if len(i.services) == 0 && s.file.path == "" {
		return block.Errorf("no service: add 'server NAME ADDRESS...' and 'service NAME SERVER...' lines, or a plugin that has the zone, such as file")
	}
	return s.servable(i)
}

// servable returns an error if a service will never have a server.
func (s *sources) servable(i inventory) error {
	for _, svc := range i.services {
		zone := plugin.Zones(s.conf.Zones).Matches(svc.name)
		if svc.servers == nil && !s.zones.CanHave(zone) {
			return svc.from.Errorf("service '%s' names no server, and no backend plugin in this server block has the zone %s: add servers, or a plugin such as file", svc.shown(), zone)
		}
	}
	return nil
}

// probes returns the names of the probes that services use.
func (s *sources) probes() []string {
	var names []string
	services := s.inventory().services
	if len(services) == 0 {
		names = append(names, "")
	}
	for _, svc := range services {
		if !slices.Contains(names, svc.probe) {
			names = append(names, svc.probe)
		}
	}
	return names
}

// loaded reports whether no zone is missing.
func (s *sources) loaded() bool { return s.zones.Loaded() }

// resume takes over what the instance before had in use, if there was one: its
// orders are no news, and stay where the admin file has an error; its zones stay
// until the plugins behind have them again.
func (s *sources) resume(before instanceSnapshot) {
	if before.snapshot == nil {
		return
	}
	s.overrides.resume(before.snapshot)
	if s.admin.Failed() {
		s.admin.SetValue(before.snapshot.overrides)
	}
	s.zones.Resume(before.snapshot.zones, before.instance.Next)
}

// snapshot makes a snapshot of what the sources hold now.
func (s *sources) snapshot() *snapshot {
	s.overrides.Update(s.admin.Value(), true)
	s.look()
	return s.build()
}

func (s *sources) build() *snapshot {
	t := build(s.conf, s.inventory(), s.zones.Zones(), s.overrides.Active())
	t.missing, t.unserved, t.parentOnly = s.zones.Missing(), make(map[string]bool), make(map[string]bool)
	for _, zone := range s.conf.Zones {
		t.unserved[zone], t.parentOnly[zone] = s.zones.Unserved(zone), s.zones.ParentOnly(zone)
	}
	if s.loaded() { // else it is too early to tell
		s.warn(t)
		s.overrides.logEffects(t)
	}
	return t
}

// follow sends a snapshot whenever the sources have changed, until the context ends.
func (s *sources) follow(ctx context.Context, snapshots chan<- *snapshot) {
	for {
		every := min(lookSources, s.admin.Wait())
		switch {
		case s.file.settling():
			every = min(every, lookAgain)
		case !s.loaded():
			every = min(every, lookUnloaded)
		}
		if end := s.overrides.NextEnd(); !end.IsZero() {
			every = min(every, time.Until(end))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
		if !s.look() {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case snapshots <- s.build():
		}
	}
}

// look looks at all sources and reports whether one has changed.
func (s *sources) look() bool {
	file, err := s.file.read(s.conf)
	s.note("services", file, err)
	if file {
		log.Infof("%s was read: with the Corefile there are %d servers and %d services", s.file.path, len(s.file.servers), len(s.file.services))
	}
	admin := s.admin.Poll()
	zones := s.zones.Poll()
	return s.overrides.Update(s.admin.Value(), admin) || file || zones
}

// inventory returns what Corefile and services file hold.
func (s *sources) inventory() inventory {
	if s.file.path != "" {
		return s.file.inventory
	}
	return s.conf.inventory
}

// note counts and logs a load of the services file.
func (s *sources) note(kind string, read bool, err error) {
	if err != nil {
		log.Errorf("Failed to reload services file %q, keeping the previous version: %v", s.file.path, err)
	}
	if err != nil || read {
		countReload(s.conf.Zones[0], kind, err)
	}
}

// maxNamed is how many services a log line names.
const maxNamed = 5

// warn tells of services for which there is no server, and of those that hide
// something of the zone, when they are others than before.
func (s *sources) warn(t *snapshot) {
	var unknown, hiding []string
	for _, svc := range s.inventory().services {
		switch n := t.names[svc.name]; {
		case n.service == nil && !t.signed(plugin.Zones(s.conf.Zones).Matches(svc.name)):
			unknown = append(unknown, svc.name)
		case n.service != nil && svc.name != n.zone && (n.has(dns.TypeCNAME) || n.has(dns.TypeNS)):
			hiding = append(hiding, svc.name)
		}
	}
	signed := slices.ContainsFunc(s.conf.Zones, t.signed) // which is told of already
	if s.services != 0 && t.services == 0 && !signed {
		log.Warningf("There is no service in %s: no 'service' line, and no name of the zone with two addresses in one family", strings.Join(s.conf.Zones, " "))
	}
	s.services = t.services
	tell := func(names []string, before *[]string, text string) {
		if len(names) > 0 && !slices.Equal(names, *before) {
			log.Warningf(text, len(names), strings.Join(names[:min(maxNamed, len(names))], ", "))
		}
		*before = names
	}
	tell(unknown, &s.unknown, "%d services name no server, and the zone behind has no address for them: %s")
	tell(hiding, &s.hiding, "%d services hide a CNAME record or a delegation at their name in the zone, where a resolver that was referred to below that name does not find them: %s")
}
