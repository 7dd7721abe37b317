package dnslb

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
)

const (
	// exchangeTime bounds one exchange.
	exchangeTime = 5 * time.Second
	// fudge is the clock difference that TSIG tolerates, in seconds (RFC 8945,
	// section 10).
	fudge = 300
)

// errSilent is that a peer took a connection and did not answer.
var errSilent = errors.New("it does not answer in time")

// dial connects. The connection is closed when ctx ends, since whoever reads
// from it minds a deadline only. The caller must call hangUp.
func (u upstream) dial(ctx context.Context, ca *x509.CertPool) (conn *dns.Conn, hangUp func(), err error) {
	client, address := u.client(ca)
	conn, err = client.DialContext(ctx, address)
	if err != nil {
		return nil, nil, err
	}
	raw := conn.Conn // which the caller may wrap
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	return conn, func() { stop(); raw.Close() }, nil
}

// exchange asks over TCP or TLS, signed if the key has a name: a registration is
// seldom, may be long, and over UDP CoreDNS takes 512 bytes of UPDATE. It ends
// when ctx does.
func (u upstream) exchange(ctx context.Context, ca *x509.CertPool, m *dns.Msg, key tsigKey) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, exchangeTime)
	defer cancel()
	conn, hangUp, err := u.dial(ctx, ca)
	if err != nil {
		return nil, err
	}
	defer hangUp()
	client := &dns.Client{Timeout: exchangeTime}
	if key.name != "" {
		m.SetTsig(key.name, key.algorithm, fudge, time.Now().Unix())
		client.TsigSecret = map[string]string{key.name: key.secret}
	}
	r, _, err := client.ExchangeWithConnContext(ctx, m, conn)
	switch {
	case r != nil && r.Rcode == dns.RcodeNotAuth:
		return r, nil // its TSIG says why, and need not verify
	case err != nil && ctx.Err() != nil:
		return nil, errSilent
	}
	return r, err
}

// refusal says what is wrong with the reply to what was signed and, as far as it
// is the key, what to do about it.
func refusal(r *dns.Msg, key tsigKey, remedy string) error {
	t := r.IsTsig()
	if t != nil && r.Rcode == dns.RcodeNotAuth {
		switch t.Error {
		case dns.RcodeBadKey:
			return fmt.Errorf("it does not know the key %s: %s", key.name, remedy)
		case dns.RcodeBadSig:
			return fmt.Errorf("it has another secret for the key %s: %s", key.name, remedy)
		case dns.RcodeBadTime:
			return fmt.Errorf("clocks differ by %s: set the time of both machines", skew(t))
		}
	}
	if r.Rcode != dns.RcodeSuccess {
		text := dns.RcodeToString[r.Rcode]
		for ede := range dnsmsg.Options[*dns.EDNS0_EDE](r) {
			if ede.ExtraText != "" {
				text += ": " + ede.ExtraText
			}
		}
		return errors.New("it answers " + text)
	}
	if t == nil {
		return errors.New("its reply is not signed: " + remedy)
	}
	return nil
}

// skew returns the difference of the clocks from a BADTIME reply (RFC 8945,
// section 5.2.3): positive if the other one is ahead.
func skew(t *dns.TSIG) time.Duration {
	raw, err := hex.DecodeString(t.OtherData)
	if err != nil || len(raw) != 6 {
		return 0
	}
	var seconds int64
	for _, b := range raw {
		seconds = seconds<<8 | int64(b)
	}
	return time.Duration(seconds-int64(t.TimeSigned)) * time.Second // #nosec G115 -- 48 bits
}
