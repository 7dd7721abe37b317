package zonesource

import (
	"encoding/binary"
	"net/netip"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
)

// HTTPS is an HTTPS record in wire form, for address hints that change. It is prepared
// once for each version of a zone.
type HTTPS struct {
	TTL uint32 // seconds

	head []byte    // owner, type and class
	data []byte    // as it is in the zone
	kept [4]around // with current hints, by which of them there are: hasV4 | hasV6
}

// around is the data of a record without address hints: what comes before, between and
// after them, in ascending order of the keys of its parameters.
type around [3][]byte

const (
	hasV4 = 1 << iota
	hasV6
)

// addHTTPS adds an HTTPS record, and none any more after one with another target.
func (n *Name) addHTTPS(rr *dns.HTTPS) {
	if n.foreign {
		return
	}
	h, ok := newHTTPS(rr)
	if !ok {
		n.foreign, n.https = true, nil
		return
	}
	n.https = append(n.https, h)
}

// newHTTPS returns a record, if it is about its owner.
func newHTTPS(rr *dns.HTTPS) (h HTTPS, ok bool) {
	if rr.Priority == 0 || rr.Target != "." {
		return HTTPS{}, false
	}
	h.TTL = rr.Hdr.Ttl
	if h.head, h.data, ok = packSVCB(rr); !ok {
		return HTTPS{}, false
	}
	hinted := *rr
	for i := range h.kept {
		var v4, v6 []netip.Addr
		if i&hasV4 != 0 {
			v4 = []netip.Addr{netip.IPv4Unspecified()}
		}
		if i&hasV6 != 0 {
			v6 = []netip.Addr{netip.IPv6Unspecified()}
		}
		hinted.Value = dnsmsg.WithHints(rr.Value, v4, v6)
		_, data, ok := packSVCB(&hinted)
		if !ok {
			return HTTPS{}, false
		}
		h.kept[i] = splitHints(data)
	}
	return h, true
}

// packSVCB returns the owner, type and class of a record, and its data.
func packSVCB(rr *dns.HTTPS) (head, data []byte, ok bool) {
	packed := make([]byte, dns.Len(rr))
	n, err := dns.PackRR(rr, packed, 0, nil, false)
	if err != nil {
		return nil, nil, false
	}
	_, end, err := dns.UnpackDomainName(packed, 0)
	if err != nil {
		return nil, nil, false
	}
	const classEnd, dataStart = 4, 10 // from the end of the owner on
	return packed[: end+classEnd : end+classEnd], packed[end+dataStart : n : n], true
}

// splitHints removes the address hints from the data of a record whose target is the root.
func splitHints(data []byte) (a around) {
	const priorityAndTarget, header = 3, 4
	a[0] = data[:priorityAndTarget:priorityAndTarget]
	for at := priorityAndTarget; at < len(data); {
		end := at + header + int(binary.BigEndian.Uint16(data[at+2:]))
		switch key := dns.SVCBKey(binary.BigEndian.Uint16(data[at:])); {
		case key == dns.SVCB_IPV4HINT, key == dns.SVCB_IPV6HINT:
		case key < dns.SVCB_IPV4HINT:
			a[0] = data[:end:end]
		case key < dns.SVCB_IPV6HINT:
			a[1] = data[at:end:end]
		default:
			a[2] = append(a[2], data[at:end]...)
		}
		at = end
	}
	return a
}

// Append appends the record as it is in the zone.
func (h *HTTPS) Append(b []byte) []byte {
	return append(h.begin(b, h.TTL, len(h.data)), h.data...)
}

// AppendHinted appends the record with address hints.
func (h *HTTPS) AppendHinted(b []byte, ttl uint32, v4, v6 []netip.Addr) []byte {
	const header = 4
	which, length := 0, 0
	if len(v4) > 0 {
		which, length = which|hasV4, length+header+len(v4)*net4
	}
	if len(v6) > 0 {
		which, length = which|hasV6, length+header+len(v6)*net6
	}
	parts := &h.kept[which]
	b = h.begin(b, ttl, length+len(parts[0])+len(parts[1])+len(parts[2]))
	b = append(b, parts[0]...)
	if len(v4) > 0 {
		b = appendHint(b, dns.SVCB_IPV4HINT, len(v4)*net4)
		for _, addr := range v4 {
			octets := addr.As4()
			b = append(b, octets[:]...)
		}
	}
	b = append(b, parts[1]...)
	if len(v6) > 0 {
		b = appendHint(b, dns.SVCB_IPV6HINT, len(v6)*net6)
		for _, addr := range v6 {
			octets := addr.As16()
			b = append(b, octets[:]...)
		}
	}
	return append(b, parts[2]...)
}

const net4, net6 = 4, 16 // octets of an address

// begin appends what comes before the data of the record.
func (h *HTTPS) begin(b []byte, ttl uint32, length int) []byte {
	b = append(b, h.head...)
	b = binary.BigEndian.AppendUint32(b, ttl)
	return binary.BigEndian.AppendUint16(b, uint16(length)) // #nosec G115 -- of a record
}

func appendHint(b []byte, key dns.SVCBKey, length int) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(key))
	return binary.BigEndian.AppendUint16(b, uint16(length)) // #nosec G115 -- a few addresses
}
