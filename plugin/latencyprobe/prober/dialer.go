package prober

import (
	"net"
	"net/netip"
)

// dialer returns a dialer for the network, tcp or udp, that sends from source,
// or from an address that the kernel chooses if source is invalid.
func dialer(network string, source netip.Addr) *net.Dialer {
	d := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: false}}
	switch local := netip.AddrPortFrom(source, 0); {
	case !source.IsValid():
	case network == "udp":
		d.LocalAddr = net.UDPAddrFromAddrPort(local)
	default:
		d.LocalAddr = net.TCPAddrFromAddrPort(local)
	}
	return d
}

// checkSource returns an error, EADDRNOTAVAIL, if source is not of this machine
// now, or another error if that cannot be told.
func checkSource(source netip.Addr) error {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(source, 0)))
	if err != nil {
		return err
	}
	return conn.Close()
}
