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
	"github.com/coredns-dnslb/coredns-dnslb/internal/filewatch"
	"github.com/coredns-dnslb/coredns-dnslb/internal/plural"
	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/zonesource"
)

// sources are where servers and services come from besides the Corefile: the
// services file, the zones of backend plugins, the admin file, and the overrides of
// DNS-Bs. One goroutine follows them; before it starts, setup reads them.
type sources struct {
	conf      *config
	zones     *zonesource.Source
	zonesOnly bool // all plugins after dnslb are backend plugins
	admin     *adminFile
	fromDNSBs func() []serverOverride
	overrides overrideSchedule
	logged    problems
}

func newSources(conf *config) *sources {
	s := &sources{conf: conf, admin: conf.admin, overrides: newOverrideSchedule(conf.prefix())}
	s.fromDNSBs = func() []serverOverride { return nil }
	if s.admin == nil {
		s.admin = noAdminFile()
	}
	if conf.file != nil {
		conf.file.accept = s.checkServers
	}
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

// adminStatus returns the status of the admin file; s may be nil.
func (s *sources) adminStatus() filewatch.Status {
	if s == nil {
		return filewatch.Status{}
	}
	return s.admin.Status()
}

// needsZone reports whether a service has no servers but the addresses in a
// zone.
func (s *sources) needsZone(zone string) bool {
	services := s.inventory().services
	return len(services) == 0 || slices.ContainsFunc(services, func(svc serviceConfig) bool {
		return svc.servers == nil && s.zoneOf(svc.name) == zone
	})
}

// zoneOf returns the zone of the server block that a name is in.
func (s *sources) zoneOf(name string) string { return plugin.Zones(s.conf.Zones).Matches(name) }

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
	} else if len(i.services) == 0 && s.conf.file == nil {
		return block.Errorf("no service: add 'server NAME ADDRESS...' and 'service NAME SERVER...' lines, or a plugin that has the zone, such as file")
	}
	return s.checkServers(i)
}

// checkServers returns an error if a service will never have a server.
func (s *sources) checkServers(i inventory) error {
	for _, svc := range i.services {
		if zone := s.zoneOf(svc.name); svc.servers == nil && !s.zones.CanHave(zone) {
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

// resume takes over what the previous instance used, if there was one: its
// overrides are logged already, and stay if the admin file has an error; its
// zones stay until the backend plugins have them again.
func (s *sources) resume(previous instanceSnapshot) {
	if previous.snapshot == nil {
		return
	}
	s.overrides.resume(previous.snapshot)
	if s.admin.Failed() {
		ofFile := slices.DeleteFunc(slices.Clone(previous.snapshot.overrides), func(o serverOverride) bool { return o.Action.DNSB != "" })
		s.admin.Resume(ofFile, previous.instance.sources.adminStatus().Loaded)
	}
	s.zones.Resume(previous.snapshot.zones, previous.instance.Next)
}

// snapshot polls the sources and makes a snapshot of them.
func (s *sources) snapshot() *snapshot {
	s.overrides.Update(s.allOverrides(), true)
	s.poll()
	return s.build()
}

func (s *sources) build() *snapshot {
	t := build(s.conf, s.inventory(), s.zones.Zones(), s.overrides.Active())
	t.missing, t.unserved, t.parentOnly = s.zones.Missing(), make(map[string]bool), make(map[string]bool)
	for _, zone := range s.conf.Zones {
		t.unserved[zone], t.parentOnly[zone] = s.zones.Unserved(zone), s.zones.ParentOnly(zone)
	}
	if s.loaded() { // else it is too early for warnings
		s.logged = s.problems(t).log(s.logged, s.conf.Zones)
		s.overrides.logEffects(t)
	}
	return t
}

// follow sends a snapshot whenever the sources have changed, until the context ends.
// It calls also whenever it has waited. fetched tells that DNS-Bs have other overrides.
func (s *sources) follow(ctx context.Context, snapshots chan<- *snapshot, fetched <-chan struct{}, also func()) {
	next := time.Now().Add(s.wait()) // a look at files in between would take half written ones
	for {
		select {
		case <-ctx.Done():
			return
		case <-fetched:
			s.overrides.Update(s.allOverrides(), true)
			if end := s.overrides.NextEnd(); !end.IsZero() && end.Before(next) {
				next = end
			}
		case <-time.After(time.Until(next)):
			also()
			changed := s.poll()
			next = time.Now().Add(s.wait())
			if !changed {
				continue
			}
		}
		select {
		case <-ctx.Done():
			return
		case snapshots <- s.build():
		}
	}
}

// wait returns how long to wait until the next poll.
func (s *sources) wait() time.Duration {
	wait := s.admin.Wait()
	if s.conf.file != nil {
		wait = min(wait, s.conf.file.Wait())
	}
	if s.conf.registrationFiles != nil {
		wait = min(wait, s.conf.registrationFiles.Wait())
	}
	if wait != filewatch.SettleTime { // earlier a file may be half written
		wait = min(wait, s.zones.Wait())
	}
	if end := s.overrides.NextEnd(); !end.IsZero() {
		wait = min(wait, time.Until(end))
	}
	return wait
}

// poll looks at all sources and reports whether one has changed.
func (s *sources) poll() bool {
	services := s.conf.file != nil && s.conf.file.Poll()
	admin := s.admin.Poll()
	zones := s.zones.Poll()
	return s.overrides.Update(s.allOverrides(), admin) || services || zones
}

// allOverrides returns the overrides of the admin file, and then those of each DNS-B
// but for services that are none of this block.
func (s *sources) allOverrides() []serverOverride {
	all := slices.Clone(s.admin.Value())
	for _, o := range s.fromDNSBs() {
		if service := o.Action.ServiceName(); service == "" || s.zoneOf(service) != "" {
			all = append(all, o)
		}
	}
	return all
}

// inventory returns what Corefile and services file hold.
func (s *sources) inventory() inventory {
	if s.conf.file != nil {
		return s.conf.file.Value()
	}
	return s.conf.inventory
}

// problems are what is worth a warning in a snapshot.
type problems struct {
	noService     bool
	withoutServer []string // services
	hiding        []string // services at whose name the zone has a CNAME record or a delegation
	crowded       []string // services at whose name the zone has too many addresses
}

func (s *sources) problems(t *snapshot) (p problems) {
	for _, svc := range s.inventory().services {
		switch n := t.names[svc.name]; {
		case n.service == nil && !t.signed(s.zoneOf(svc.name)):
			p.withoutServer = append(p.withoutServer, svc.name)
		case n.service != nil && svc.name != n.zone && (n.has(dns.TypeCNAME) || n.has(dns.TypeNS)):
			p.hiding = append(p.hiding, svc.name)
		}
	}
	// Signed zones have a log line of their own.
	p.crowded = t.crowded
	p.noService = t.services == 0 && !slices.ContainsFunc(s.conf.Zones, t.signed)
	return p
}

// maxNamed is how many services a log line names.
const maxNamed = 5

// someOf returns the first of some names, as a text.
func someOf(names []string) string { return strings.Join(names[:min(maxNamed, len(names))], ", ") }

// log warns of the problems that differ from those logged last, and returns p.
func (p problems) log(last problems, zones []string) problems {
	if p.noService && !last.noService {
		log.Warningf("No service in %s: no 'service' line, and no name of the zone has two A or two AAAA records", strings.Join(zones, " "))
	}
	if len(p.withoutServer) > 0 && !slices.Equal(p.withoutServer, last.withoutServer) {
		log.Warningf("Found %s without any server: the 'service' line names none, and the zone has no address at the name: %s",
			plural.Of(len(p.withoutServer), "service"), someOf(p.withoutServer))
	}
	if len(p.hiding) > 0 && !slices.Equal(p.hiding, last.hiding) {
		log.Warningf("Found %s at the name of a CNAME record or delegation in the zone, answering in its place; resolvers that follow a delegation get other answers: %s",
			plural.Of(len(p.hiding), "service"), someOf(p.hiding))
	}
	if len(p.crowded) > 0 && !slices.Equal(p.crowded, last.crowded) {
		log.Warningf("Ignored addresses of the zone beyond the first %d, the most that can be ranked, for %s: %s",
			ranking.MaxServers, plural.Of(len(p.crowded), "service"), someOf(p.crowded))
	}
	return p
}
