// Package tcplimit limits the connections of DNS over TCP and TLS, for each
// client and in all, so that slow clients leave descriptors and memory to
// everybody else.
//
// CoreDNS accepts every connection, and no plugin gets at its listeners or
// connections. So one goroutine of the process looks through the descriptors of
// the process for connections to the ports of DNS, and shuts down those that
// have been idle for longest, which CoreDNS then closes as if their clients had.
// Connections that this process opened are not affected, nor those of other
// protocols. Only Linux tells what is needed: on other systems there is no limit.
package tcplimit

import (
	"fmt"
	"strconv"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/parse"
	"github.com/coredns/coredns/plugin/pkg/transport"

	"github.com/coredns-dnslb/coredns-dnslb/internal/reload"
)

// ports are the TCP ports of the server blocks of one Corefile instance that
// called Enable.
type ports map[uint16]bool

// portsKey is the key of the ports of a Corefile.
type portsKey struct{}

var limiters = reload.Owner[struct{}, *limiter, ports]{
	New:       func(struct{}) *limiter { return startLimiter() },
	Configure: func(l *limiter, want ports) error { l.setPorts(want); return nil },
	Close:     func(_ struct{}, l *limiter) { l.stop() },
}

// Enable limits the connections to the ports of the server block of c. It is to
// be called in a setup function.
func Enable(c *caddy.Controller) error {
	holder := limiters.Attach(c)
	p, ok := c.Get(portsKey{}).(ports)
	if !ok {
		p = make(ports)
		c.Set(portsKey{}, p)
		c.OnStartup(func() error {
			_, err := limiters.Hold(holder, struct{}{}, p)
			return err
		})
	}
	return p.add(c.ServerBlockKeys)
}

// defaultPorts are those of the protocols whose connections are limited.
var defaultPorts = map[string]string{transport.DNS: transport.Port, transport.TLS: transport.TLSPort}

// add adds the ports of the keys of a server block that are for DNS over TCP or
// TLS. CoreDNS limits the connections of its other servers itself.
func (p ports) add(keys []string) error {
	for _, key := range keys {
		protocol, address := parse.Transport(key)
		port, listens := defaultPorts[protocol]
		if !listens {
			continue
		}
		_, given, err := plugin.SplitHostPort(address)
		if err != nil {
			return fmt.Errorf("invalid server block %q: %w", key, err)
		}
		if given != "" {
			port = given
		}
		number, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return fmt.Errorf("invalid port of server block %q: %w", key, err)
		}
		p[uint16(number)] = true
	}
	return nil
}
