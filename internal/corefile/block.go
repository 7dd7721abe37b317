package corefile

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/transport"
)

// Port is the port of DNS (RFC 1035, section 4.2).
const Port = 53

// Zones returns the zones of a server block, each once: absolute, in lower case, in
// the order of the block. CoreDNS finds no server block for a query if a zone is
// written in another form than that of names in queries.
func Zones(c *caddy.Controller) ([]string, error) {
	var zones []string
	for _, zone := range plugin.OriginsFromArgsOrServerBlock(nil, c.ServerBlockKeys) {
		name, err := Name(zone)
		if err == nil && name != zone {
			err = fmt.Errorf("invalid name '%s': write '%s'", zone, name)
		}
		if err != nil {
			return nil, c.Errf("zone of this server block: %v", err)
		}
		if !slices.Contains(zones, zone) { // a zone has a key for each of its listeners
			zones = append(zones, zone)
		}
	}
	return zones, nil
}

// PlainPort returns the port at which a server block serves a zone to resolvers: over
// plain DNS. Of several ports it is that of DNS, or else the first. It is 0 if the
// block serves the zone by other transports alone.
func PlainPort(c *caddy.Controller, zone string) uint16 {
	first := uint16(0)
	for _, listener := range c.ServerBlockKeys {
		address := strings.TrimPrefix(listener, transport.DNS+"://")
		hosts, text, err := plugin.SplitHostPort(address)
		if err != nil || strings.Contains(address, "://") || len(hosts) == 0 || plugin.Name(hosts[0]).Normalize() != zone {
			continue
		}
		if text == "" {
			text = dnsserver.Port
		}
		switch port, err := strconv.ParseUint(text, 10, 16); {
		case err != nil:
		case port == Port:
			return Port
		case first == 0:
			first = uint16(port)
		}
	}
	return first
}
