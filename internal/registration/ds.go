package registration

import (
	"encoding/hex"
	"strings"

	"github.com/miekg/dns"
)

// maxDS is the most keys that a node may state for one cut: more than any key
// rollover has, and few enough for a referral.
const maxDS = 8

// DS is a key that a cut is signed with, in the fields of a DS record (RFC
// 4034, section 5).
type DS struct {
	Cut        string // absolute, lower case
	KeyTag     uint16
	Algorithm  uint8
	DigestType uint8
	Digest     string // hexadecimal, lower case
}

// NewDS returns the key of a DS record.
func NewDS(rr *dns.DS) DS {
	return DS{dns.CanonicalName(rr.Hdr.Name), rr.KeyTag, rr.Algorithm, rr.DigestType, strings.ToLower(rr.Digest)}
}

// RR returns the DS record with the header h.
func (d DS) RR(h dns.RR_Header) *dns.DS {
	return &dns.DS{Hdr: h, KeyTag: d.KeyTag, Algorithm: d.Algorithm, DigestType: d.DigestType, Digest: d.Digest}
}

// digestSizes are the lengths in bytes of the digests that validators know, by
// digest type. RFC 9905 rules SHA-1 out.
var digestSizes = map[uint8]int{dns.SHA256: 32, dns.SHA384: 48}

// Check returns an *Error if no validator could use the record.
func (d DS) Check() error {
	size, ok := digestSizes[d.DigestType]
	if !ok {
		return refused("invalid DS record %d at %s: expected digest type %d (SHA-256) or %d (SHA-384)", d.KeyTag, d.Cut, dns.SHA256, dns.SHA384)
	}
	if len(d.Digest) != 2*size {
		return formErr("invalid DS record %d at %s: expected %d bytes for digest type %d", d.KeyTag, d.Cut, size, d.DigestType)
	}
	if _, err := hex.DecodeString(d.Digest); err != nil {
		return formErr("invalid DS record %d at %s: expected a digest of hexadecimal digits", d.KeyTag, d.Cut)
	}
	return nil
}

func (p *parser) ds(name string, rr *dns.DS) error {
	if rr.Digest == "" {
		return formErr("DS record at %s has no data", name)
	}
	ds := NewDS(rr)
	if err := ds.Check(); err != nil {
		return err
	}
	if !p.keys[ds] {
		p.keys[ds] = true
		p.reg.DS = append(p.reg.DS, ds)
	}
	return nil
}

// checkDS checks that all keys are keys of cuts that the node serves.
func (p *parser) checkDS() error {
	count := make(map[string]int)
	for _, ds := range p.reg.DS {
		if !p.cuts[ds.Cut] {
			return refused("DS record at %s without an NS record: add the NS record of node %s at the same name", ds.Cut, p.reg.Node)
		}
		if count[ds.Cut]++; count[ds.Cut] > maxDS {
			return refused("cut %s has more than %d DS records", ds.Cut, maxDS)
		}
	}
	return nil
}
