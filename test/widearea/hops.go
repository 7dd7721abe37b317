package widearea

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// hops is how many routers a packet passes: one in the city of its sender, and one in
// that of its receiver.
const hops = 2

// maxQuoted is how much of a packet a router sends back, in bytes.
const maxQuoted = 128

// RouterAddr returns the address of the router in a city, in a network of its own.
func (m *Matrix) RouterAddr(city string, six bool) netip.Addr {
	i := byte(m.mustIndex(city)) // #nosec G115 -- some dozens
	if six {
		return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 0x19, i, 15: 1})
	}
	return netip.AddrFrom4([4]byte{198, 19, i, 1})
}

// ttl returns the time to live of an IP packet.
func ttl(packet []byte) int {
	if packet[0]>>4 == 4 {
		return int(packet[8])
	}
	return int(packet[7])
}

// timeExceeded returns what a router sends when the TTL of a packet ends there (RFC 792,
// RFC 4443).
func timeExceeded(router netip.Addr, packet []byte) []byte {
	message := icmp.Message{Type: ipv4.ICMPTypeTimeExceeded, Body: &icmp.TimeExceeded{Data: packet[:min(len(packet), maxQuoted)]}}
	if router.Is6() {
		message.Type = ipv6.ICMPTypeTimeExceeded
		source := packet[8:24]
		body, err := message.Marshal(icmp.IPv6PseudoHeader(router.AsSlice(), source))
		if err != nil {
			panic(err) // no input of others is in it
		}
		header := make([]byte, 40, 40+len(body))
		header[0], header[6], header[7] = 6<<4, 58, 64
		binary.BigEndian.PutUint16(header[4:], uint16(len(body))) // #nosec G115 -- below maxQuoted and a header
		copy(header[8:], router.AsSlice())
		copy(header[24:], source)
		return append(header, body...)
	}
	body, err := message.Marshal(nil)
	if err != nil {
		panic(err) // likewise
	}
	header := make([]byte, 20, 20+len(body))
	header[0], header[8], header[9] = 4<<4|5, 64, 1
	binary.BigEndian.PutUint16(header[2:], uint16(len(header)+len(body))) // #nosec G115 -- likewise
	copy(header[12:], router.AsSlice())
	copy(header[16:], packet[12:16])
	sum := uint32(0)
	for i := 0; i < len(header); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(header[i:]))
	}
	sum = sum>>16 + sum&0xffff
	sum += sum >> 16
	binary.BigEndian.PutUint16(header[10:], ^uint16(sum)) // #nosec G115 -- the low half
	return append(header, body...)
}
