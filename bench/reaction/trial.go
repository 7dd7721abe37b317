//go:build linux

package main

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// trial is one question to the program: its answer changes after something happens.
type trial struct {
	name          string
	from          netip.Addr // of the client
	before, after string     // the address in an answer, or the first node in a referral
	happen        func() error
}

// run lets it happen, and returns how long it then took until the answer changed.
func (t *trial) run(pause time.Duration) (time.Duration, error) {
	if err := t.await(t.before, pause); err != nil {
		return 0, fmt.Errorf("before it happens: %w", err)
	}
	if err := t.happen(); err != nil {
		return 0, err
	}
	begin := time.Now()
	err := t.await(t.after, pause)
	return time.Since(begin), err
}

// await asks until the answer is the wanted one.
func (t *trial) await(want string, pause time.Duration) error {
	for begin := time.Now(); ; time.Sleep(pause) {
		got, err := t.ask()
		if err == nil && got == want {
			return nil
		}
		if time.Since(begin) > longest {
			return fmt.Errorf("%s: expected %s within %v, got %q, %w", t.name, want, longest, got, err)
		}
	}
}

func (t *trial) ask() (string, error) {
	d := net.Dialer{LocalAddr: &net.UDPAddr{IP: t.from.AsSlice()}, Timeout: time.Second}
	client := dns.Client{Dialer: &d, Timeout: time.Second}
	m := new(dns.Msg).SetQuestion(t.name, dns.TypeA)
	m.RecursionDesired = false
	r, _, err := client.Exchange(m, fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return "", err
	}
	for _, rr := range append(r.Answer, r.Ns...) {
		switch rr := rr.(type) {
		case *dns.A:
			return rr.A.String(), nil
		case *dns.NS:
			return rr.Ns, nil
		}
	}
	return dns.RcodeToString[r.Rcode], nil
}
