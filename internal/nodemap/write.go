package nodemap

import (
	"encoding/hex"
	"iter"
	"net/netip"
	"slices"
	"strconv"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
)

// Lists are the lists of all prefixes, in the form in which they travel. They are
// the same for all cuts of a DNS-B, and immutable.
type Lists struct {
	texts    []string
	records  [][]string // by list: the data of APL records, in hexadecimal
	sites    []string   // in the form in which they travel
	routed   []string   // the prefixes of those by routers
	Prefixes int        // that differ from the prefix around them
}

// chunk is the size of the data of one APL record in bytes.
const chunk = 8 << 10

// NewLists makes Lists of prefixes in order: one comes before those in it. Each
// prefix has its whole list, which those in it do not inherit, and which is not kept.
func NewLists(prefixes iter.Seq2[netip.Prefix, List]) *Lists {
	type covering struct {
		prefix netip.Prefix
		list   int
	}
	var (
		out     = new(Lists)
		numbers = make(map[string]int) // of lists, by their text
		data    [][]byte
		around  []covering // the shortest prefix first
		text    []byte     // of the list
	)
	for prefix, list := range prefixes {
		for len(around) > 0 && !dnsmsg.Covers(around[len(around)-1].prefix, prefix) {
			around = around[:len(around)-1]
		}
		text = list.appendText(text[:0])
		number, known := numbers[string(text)]
		if !known {
			number = len(out.texts)
			numbers[string(text)] = number
			out.texts, out.records, data = append(out.texts, string(text)), append(out.records, nil), append(data, nil)
		}
		if n := len(around); n > 0 && around[n-1].list == number {
			continue
		}
		around = append(around, covering{prefix, number})
		out.Prefixes++
		if data[number] = appendItem(data[number], prefix); len(data[number]) > chunk {
			out.flush(number, data)
		}
	}
	for number := range data {
		out.flush(number, data)
	}
	return out
}

func (l *Lists) flush(number int, data [][]byte) {
	if len(data[number]) > 0 {
		l.records[number] = append(l.records[number], hex.EncodeToString(data[number]))
		data[number] = data[number][:0]
	}
}

// Equal reports whether two maps say the same, what nodes measured of sites apart.
func (l *Lists) Equal(other *Lists) bool {
	return slices.Equal(l.texts, other.texts) && slices.EqualFunc(l.records, other.records, slices.Equal[[]string])
}

// appendItem appends a prefix as an item of an APL record. Trailing zeros are not
// sent (RFC 3123, section 4).
func appendItem(b []byte, prefix netip.Prefix) []byte {
	family, all := byte(2), prefix.Addr().As16()
	addr := all[:]
	if prefix.Addr().Is4() {
		family, addr = 1, all[12:]
	}
	for len(addr) > 0 && addr[len(addr)-1] == 0 {
		addr = addr[:len(addr)-1]
	}
	return append(append(b, 0, family, byte(prefix.Bits()), byte(len(addr))), addr...) // #nosec G115 -- at most 128
}

// SOA returns the SOA record of the map of a cut.
func SOA(cut, nameserver string, serial uint32) dns.RR {
	zone := ZoneOf(cut)
	return dnsmsg.NewSOA(zone, nameserver, dnsmsg.Mailbox(cut), serial, recordTTL)
}

// Records returns the records of the map of a cut, without the SOA record that
// begins and ends a transfer. nodes are those that serve the cut.
func (l *Lists) Records(cut, nameserver string, nodes []string) iter.Seq[dns.RR] {
	zone := ZoneOf(cut)
	return func(yield func(dns.RR) bool) {
		text := func(owner, text string) dns.RR {
			return dnsmsg.NewTXT(dnsmsg.Header(owner, dns.TypeTXT, recordTTL), text)
		}
		if !yield(&dns.NS{Hdr: dnsmsg.Header(zone, dns.TypeNS, recordTTL), Ns: nameserver}) || !yield(text(zone, version)) {
			return
		}
		for _, node := range nodes {
			if !yield(text(nodeLabel+"."+zone, node)) {
				return
			}
		}
		for i, list := range l.texts {
			owner := strconv.Itoa(i) + "." + listLabel + "." + zone
			if !yield(text(owner, list)) {
				return
			}
			for _, data := range l.records[i] {
				// The data of an APL record: package dns would take 20 times the memory.
				if !yield(&dns.RFC3597{Hdr: dnsmsg.Header(owner, dns.TypeAPL, recordTTL), Rdata: data}) {
					return
				}
			}
		}
		for _, site := range l.sites {
			if !yield(text(siteLabel+"."+zone, site)) {
				return
			}
		}
		for _, prefix := range l.routed {
			if !yield(text(routerLabel+"."+zone, prefix)) {
				return
			}
		}
	}
}
