package dnslb

import (
	"maps"
	"slices"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/mapfetch"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/overridefetch"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/registrar"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/surveyor"
)

// registrarSettings returns what the node registers, and where.
func registrarSettings(conf config) registrar.Settings {
	return registrar.Settings{Registration: registrationOf(conf), DNSBs: conf.dnsbs, Key: conf.key, CA: conf.ca}
}

// mapSettings returns which map the node fetches, and where.
func mapSettings(conf config) mapfetch.Settings {
	return mapfetch.Settings{Node: conf.Node, Cut: conf.Zones[0], DNSBs: conf.dnsbs, Key: conf.key, CA: conf.ca}
}

// overrideSettings returns whose overrides the node fetches.
func overrideSettings(conf config) overridefetch.Settings {
	return overridefetch.Settings{Node: conf.Node, Cut: conf.Zones[0], DNSBs: conf.dnsbs, Key: conf.key, CA: conf.ca}
}

// surveySettings returns for which DNS-Bs the node measures, and how.
func (d *DNSLB) surveySettings(conf config) surveyor.Settings {
	if conf.survey == nil {
		return surveyor.Settings{}
	}
	s := surveyor.Settings{Node: conf.Node, DNSBs: conf.dnsbs, Key: conf.key, CA: conf.ca, Options: *conf.survey}
	if d.probe != nil {
		s.Source4, s.Source6 = d.probe.Sources()
	}
	return s
}

// registrationOf returns what the node states about itself, without zone and
// serial.
func registrationOf(conf config) registration.Registration {
	return registration.Registration{
		Node:      conf.Node,
		Addresses: conf.addresses,
		Prefixes:  conf.near,
		Location:  conf.location,
		Cuts:      conf.Zones,
		DS:        conf.ds,
		Lease:     conf.lease,
		Deputies:  conf.deputies,

		ClientSubnets: conf.clientSubnets,
	}
}

// maxBesideText bounds what a registration says of nodes beside servers, in bytes.
const maxBesideText = 4096

// nodesBesideServers returns, for each set of servers, the nodes that stand where these
// do, as the registration has them: DNS-B has those measure a site whose servers could be
// the best. What is more than the bounds is left out, and the search for it is slower.
func (t *snapshot) nodesBesideServers() (sets [][]string) {
	if t == nil {
		return nil
	}
	text := 0
	for _, p := range t.pools {
		nodes := make(map[string]bool)
		for _, m := range p.members {
			if m.beside != "" {
				nodes[m.beside] = true
			}
		}
		set := slices.Sorted(maps.Keys(nodes))
		set = set[:min(len(set), registration.MaxBesideNodes)]
		if len(set) == 0 || slices.ContainsFunc(sets, func(other []string) bool { return slices.Equal(set, other) }) {
			continue
		}
		for _, node := range set {
			text += 1 + len(node)
		}
		if len(sets) == registration.MaxBeside || text > maxBesideText {
			break
		}
		sets = append(sets, set)
	}
	return sets
}
