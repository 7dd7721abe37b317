package setupcheck

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin/pkg/transport"
)

// Alone has the start of the process fail if another process serves an address of
// the server block of c. CoreDNS would share the port with it (SO_REUSEPORT): each
// process would get some of the queries, register the same node, and withdraw the
// node of the other one when it ends.
func Alone(c *caddy.Controller) {
	cfg := dnsserver.GetConfig(c)
	c.OnFirstStartup(func() error {
		for _, host := range cfg.ListenHosts {
			if err := free(cfg.Transport, net.JoinHostPort(host, cfg.Port)); err != nil {
				return err
			}
		}
		return nil
	})
}

// free returns an error if an address is in use. Whatever else there is to say of
// the address, CoreDNS says.
func free(protocol, address string) error {
	if protocol != transport.QUIC && protocol != transport.HTTPS3 {
		l, err := net.Listen("tcp", address)
		if err == nil {
			err = l.Close()
		}
		if errors.Is(err, syscall.EADDRINUSE) {
			return inUse("TCP", address)
		}
	}
	if protocol == transport.DNS || protocol == transport.QUIC || protocol == transport.HTTPS3 {
		l, err := net.ListenPacket("udp", address)
		if err == nil {
			err = l.Close()
		}
		if errors.Is(err, syscall.EADDRINUSE) {
			return inUse("UDP", address)
		}
	}
	return nil
}

func inUse(protocol, address string) error {
	return fmt.Errorf("another process serves %s over %s: end it first, or name other addresses with 'bind'", address, protocol)
}
