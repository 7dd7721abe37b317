package dnsmsg

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// Header returns the header of a record of class IN. The TTL is in seconds.
func Header(owner string, rrtype uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: owner, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}

// NewSOA returns an SOA record. Its TTL, in seconds, is that of negative answers:
// resolvers take the lower one of the TTL and MINIMUM (RFC 2308, section 5).
// MINIMUM and the timers are within the ranges of RFC 1912, section 2.2, and of
// the programs that check zones.
func NewSOA(owner, server, mailbox string, serial, ttl uint32) *dns.SOA {
	return &dns.SOA{
		Hdr: Header(owner, dns.TypeSOA, ttl), Ns: server, Mbox: mailbox, Serial: serial,
		Refresh: 4 * 3600, Retry: 3600, Expire: 14 * 24 * 3600, Minttl: max(ttl, 300),
	}
}

// MaxString is how many bytes a character-string holds (RFC 1035, section 3.3).
const MaxString = 255

// escape returns a string in the form that the strings of a dns.TXT have.
var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace

// NewTXT returns a TXT record of a text, cut into character-strings. None of
// them is empty unless the text is.
func NewTXT(h dns.RR_Header, text string) *dns.TXT {
	rr := &dns.TXT{Hdr: h}
	for len(text) > MaxString {
		rr.Txt = append(rr.Txt, escape(text[:MaxString]))
		text = text[MaxString:]
	}
	rr.Txt = append(rr.Txt, escape(text))
	return rr
}

// Text returns the text of a TXT record, without the escapes that package dns writes
// for characters that are special in zone files.
func Text(rr *dns.TXT) string {
	text := strings.Join(rr.Txt, "")
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' || i+1 == len(text) {
			b.WriteByte(text[i])
			continue
		}
		if n, err := strconv.ParseUint(text[i+1:min(i+4, len(text))], 10, 8); err == nil && i+4 <= len(text) {
			b.WriteByte(byte(n))
			i += 3
			continue
		}
		i++
		b.WriteByte(text[i])
	}
	return b.String()
}

// CoveredType returns the type that a signature covers, and the type itself of
// any other record.
func CoveredType(rr dns.RR) uint16 {
	if sig, ok := rr.(*dns.RRSIG); ok {
		return sig.TypeCovered
	}
	return rr.Header().Rrtype
}

// LimitTTL returns a record with a TTL of at most ttl seconds: rr itself, or a
// copy of it.
func LimitTTL(rr dns.RR, ttl uint32) dns.RR {
	if rr.Header().Ttl <= ttl {
		return rr
	}
	rr = dns.Copy(rr)
	rr.Header().Ttl = ttl
	return rr
}

// CheckVersion returns an error if word, the first one of the record that tells
// the version of a wire form, is not the version that this program reads.
func CheckVersion(word, version string) error {
	if word != version {
		return fmt.Errorf("unknown version %.20q, expected %q: update the node with the older program", word, version)
	}
	return nil
}

// RcodeText returns the name of an RCODE, or its number if it has none.
func RcodeText(rcode int) string {
	return cmp.Or(dns.RcodeToString[rcode], strconv.Itoa(rcode))
}
