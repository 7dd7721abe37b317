package dnsb

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/coredns/coredns/plugin/tsig"

	"github.com/miekg/dns"
)

// maxSkew is how far the time at which an UPDATE was signed may be from the clock
// of this server, whatever its sender allows (RFC 8945, section 10).
const maxSkew = 300 * time.Second

type signatureKey struct{}

// signature is what an UPDATE is signed with. The zero value is that of one that
// is not signed.
type signature struct {
	key  string // in canonical form
	time time.Time
	mac  string
	tsig *dns.TSIG
}

// verifiedSignature returns the signature that *tsig* has found right.
func verifiedSignature(ctx context.Context) signature {
	key, ok := tsig.ValidatedKeyName(ctx)
	t, noted := ctx.Value(signatureKey{}).(*dns.TSIG)
	if !ok || !noted || dns.CanonicalName(t.Hdr.Name) != key {
		return signature{}
	}
	return signature{key, time.Unix(int64(t.TimeSigned), 0), t.MAC, t} // #nosec G115 -- 48 bits
}

// checkTime returns an error if the signature is too old or too new.
func (s signature) checkTime() error {
	if skew := time.Since(s.time); skew.Abs() > maxSkew {
		return &replayError{fmt.Sprintf("signed at %s, %s from the clock of this server: compare the clocks", s.time.UTC().Format(time.RFC3339), skew.Abs().Round(time.Second))}
	}
	return nil
}

// replayError says why the time of a signature is refused: BADTIME.
type replayError struct{ text string }

func (e *replayError) Error() string { return e.text }

// replySignature returns the TSIG record of a reply to a message that was signed
// with t. The server fills in the rest (RFC 8945, section 5.2.3).
func replySignature(m *dns.Msg, t *dns.TSIG, code uint16) *dns.TSIG {
	now := uint64(time.Now().Unix()) // #nosec G115 -- positive since 1970
	reply := &dns.TSIG{
		Hdr:       dns.RR_Header{Name: t.Hdr.Name, Rrtype: dns.TypeTSIG, Class: dns.ClassANY},
		Algorithm: t.Algorithm, TimeSigned: now, Fudge: uint16(maxSkew / time.Second), OrigId: m.Id, Error: code,
	}
	if code == dns.RcodeBadTime {
		reply.TimeSigned = t.TimeSigned
		reply.OtherData, reply.OtherLen = hex.EncodeToString(binary.BigEndian.AppendUint64(nil, now)[2:]), 6
	}
	return reply
}
