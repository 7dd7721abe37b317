package registration

import (
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// maxDS is how many keys a node may state for one cut: more than any rollover
// has, and few enough for a referral.
const maxDS = 8

// DS is a key that a cut is signed with, as a DS record states it (RFC 4034,
// section 5).
type DS struct {
	Cut        string // absolute, lower case
	KeyTag     uint16
	Algorithm  uint8
	DigestType uint8
	Digest     string // hexadecimal, lower case
}

// DSOf returns what a DS record states.
func DSOf(rr *dns.DS) DS {
	return DS{dns.CanonicalName(rr.Hdr.Name), rr.KeyTag, rr.Algorithm, rr.DigestType, strings.ToLower(rr.Digest)}
}

// RR returns the record, owned as h says.
func (d DS) RR(h dns.RR_Header) *dns.DS {
	return &dns.DS{Hdr: h, KeyTag: d.KeyTag, Algorithm: d.Algorithm, DigestType: d.DigestType, Digest: d.Digest}
}

// digests are the lengths in bytes of the digests that validators know (RFC
// 9905 rules SHA-1 out).
var digests = map[uint8]int{dns.SHA256: 32, dns.SHA384: 48}

// Check returns an error if no validator could use the record.
func (d DS) Check() error {
	n, ok := digests[d.DigestType]
	if !ok {
		return refused("DS %d at %s: its digest must be of type %d (SHA-256) or %d (SHA-384)", d.KeyTag, d.Cut, dns.SHA256, dns.SHA384)
	}
	if len(d.Digest) != 2*n {
		return formErr("DS %d at %s: a digest of type %d has %d bytes", d.KeyTag, d.Cut, d.DigestType, n)
	}
	return nil
}

func (p *parser) signs(name string, rr *dns.DS) error {
	if rr.Digest == "" {
		return formErr("DS record without data at %s", name)
	}
	ds := DSOf(rr)
	if err := ds.Check(); err != nil {
		return err
	}
	if !slices.Contains(p.DS, ds) {
		p.DS = append(p.DS, ds)
	}
	return nil
}

// checkDS checks that the keys are those of cuts that the node serves.
func (p *parser) checkDS() error {
	count := make(map[string]int)
	for _, ds := range p.DS {
		if !slices.Contains(p.Cuts, ds.Cut) {
			return refused("DS record at %s: the update does not add an NS record there for this node", ds.Cut)
		}
		if count[ds.Cut]++; count[ds.Cut] > maxDS {
			return refused("%s has more than %d DS records", ds.Cut, maxDS)
		}
	}
	return nil
}
