// Package dnsclient asks DNS servers over TCP or TLS, signed with TSIG: nodes
// register with it, and fetch views from each other. Every exchange is bounded
// by time, and a refusal is explained with its remedy.
package dnsclient

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/remotetext"
)

// Timeout bounds one exchange, and each message of a transfer.
const Timeout = 5 * time.Second

// errTimeout says that a server took the connection and did not answer.
var errTimeout = errors.New("no answer in time")

// Exchange sends m, signed unless key is zero, and returns the reply. It uses a
// connection of its own: registrations are rare and long, and CoreDNS takes no
// more than 512 bytes of UPDATE over UDP. It ends when ctx does, or after
// Timeout. A nil ca stands for the authorities of the system.
//
// A signature of the reply is verified, except that of NOTAUTH, which cannot be:
// see CheckSigned.
func (e Endpoint) Exchange(ctx context.Context, ca *x509.CertPool, m *dns.Msg, key Key) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	conn, hangUp, err := e.dial(ctx, ca)
	if err != nil {
		return nil, err
	}
	defer hangUp()
	return exchange(ctx, conn, m, key)
}

// exchange is Exchange over a connection.
func exchange(ctx context.Context, conn *dns.Conn, m *dns.Msg, key Key) (*dns.Msg, error) {
	client := &dns.Client{Timeout: Timeout}
	if key.Name != "" {
		key.sign(m)
		client.TsigSecret = key.secrets()
	}
	r, _, err := client.ExchangeWithConnContext(ctx, m, conn)
	switch {
	case r != nil && r.Rcode == dns.RcodeNotAuth:
		return r, nil
	case err != nil && ctx.Err() != nil:
		return nil, errTimeout
	}
	return r, err
}

// CheckSigned returns an error that explains what is wrong with the reply to a
// request that was signed with key, nil if it is a signed NOERROR. Where the key
// is at fault, the error ends with the remedy.
func CheckSigned(r *dns.Msg, key Key, remedy string) error {
	t := r.IsTsig()
	if t != nil && r.Rcode == dns.RcodeNotAuth {
		switch t.Error {
		case dns.RcodeBadKey:
			return fmt.Errorf("the server does not know key '%s' (BADKEY): %s", key.Name, remedy)
		case dns.RcodeBadSig:
			return fmt.Errorf("the server has a different secret for key '%s' (BADSIG): %s", key.Name, remedy)
		case dns.RcodeBadTime:
			return fmt.Errorf("clocks differ by %s (BADTIME): set the time of both machines", clockDifference(t))
		}
	}
	if r.Rcode != dns.RcodeSuccess {
		texts := []string{"the server answered " + dnsmsg.RcodeText(r.Rcode)}
		for ede := range dnsmsg.Options[*dns.EDNS0_EDE](r) {
			if ede.ExtraText != "" && len(texts) <= maxTexts {
				texts = append(texts, remotetext.Clean(ede.ExtraText))
			}
		}
		return errors.New(strings.Join(texts, ": "))
	}
	if t == nil {
		return errors.New("the reply is not signed: " + remedy)
	}
	return nil
}

// maxTexts is how many Extended DNS Errors of one reply are shown.
const maxTexts = 3

// ClockDifference returns how far the server's clock is ahead, to the second, as a
// signed reply that has just arrived tells; ok is false for one that does not.
func ClockDifference(r *dns.Msg) (ahead time.Duration, ok bool) {
	t := r.IsTsig()
	switch {
	case t == nil, t.Error != dns.RcodeSuccess && t.Error != dns.RcodeBadTime:
		return 0, false
	case t.Error == dns.RcodeBadTime:
		return clockDifference(t), true
	}
	return time.Unix(int64(t.TimeSigned), 0).Sub(time.Now().Truncate(time.Second)), true // #nosec G115 -- 48 bits
}

// clockDifference returns how far the server's clock is ahead, from its BADTIME
// reply (RFC 8945, section 5.2.3).
func clockDifference(t *dns.TSIG) time.Duration {
	raw, err := hex.DecodeString(t.OtherData)
	if err != nil || len(raw) != 6 {
		return 0
	}
	var seconds int64
	for _, b := range raw {
		seconds = seconds<<8 | int64(b)
	}
	const most = int64(math.MaxInt64 / time.Second)
	difference := seconds - int64(t.TimeSigned) // #nosec G115 -- 48 bits
	return time.Duration(max(-most, min(difference, most))) * time.Second
}
