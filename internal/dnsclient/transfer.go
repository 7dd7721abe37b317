package dnsclient

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net"

	"github.com/miekg/dns"
)

// Transfer fetches a zone by AXFR, signed with key, and passes each record to
// add; the first error of add ends it. It reads at most maxBytes, and ends when
// ctx does.
func (e Endpoint) Transfer(ctx context.Context, ca *x509.CertPool, zone string, key Key, maxBytes int, add func(dns.RR) error) error {
	conn, hangUp, err := e.dial(ctx, ca)
	if err != nil {
		return err
	}
	defer hangUp()
	return transfer(ctx, conn, zone, key, maxBytes, add)
}

// transfer is Transfer over a connection.
func transfer(ctx context.Context, conn *dns.Conn, zone string, key Key, maxBytes int, add func(dns.RR) error) error {
	limited := &limitedConn{Conn: conn.Conn, rest: maxBytes}
	conn.Conn = limited
	t := &dns.Transfer{Conn: conn, ReadTimeout: Timeout, WriteTimeout: Timeout, TsigSecret: key.secrets()}
	m := new(dns.Msg).SetAxfr(zone)
	key.sign(m)
	messages, err := t.In(m, "") // over conn
	if err != nil {
		return err
	}
	var failed error
	for message := range messages {
		if failed != nil {
			continue // the goroutine of t ends when the channel is drained
		}
		failed = message.Error
		for i := 0; i < len(message.RR) && failed == nil; i++ {
			failed = add(message.RR[i])
		}
		if failed != nil {
			conn.Close()
		}
	}
	switch {
	case failed != nil && ctx.Err() != nil:
		return errTimeout
	case failed != nil && limited.rest <= 0: // package dns may name what it made of the last bytes
		return fmt.Errorf("zone longer than %d bytes", maxBytes)
	}
	return failed
}

// limitedConn fails when it has read its limit.
type limitedConn struct {
	net.Conn
	rest int // bytes
}

// Read implements the net.Conn interface.
func (c *limitedConn) Read(b []byte) (int, error) {
	if c.rest <= 0 {
		return 0, io.ErrShortBuffer
	}
	n, err := c.Conn.Read(b[:min(len(b), c.rest)])
	c.rest -= n
	return n, err
}
