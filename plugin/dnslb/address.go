package dnslb

import "net/netip"

// isHost reports whether an address can be one of a host.
func isHost(addr netip.Addr) bool { return !addr.IsUnspecified() && !addr.IsMulticast() }
