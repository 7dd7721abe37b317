//go:build linux

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

const (
	key    = "reaction.key."
	secret = "cmVhY3Rpb24tZXhhbXBsZS1vbmx5LW1ha2UteW91ci1vd24=" // #nosec G101 -- of a server that lives for seconds
)

// pause is the time between two registrations: DNS-B takes two a second from a node.
const pause = 600 * time.Millisecond

// registrationEvent has a DNS-B to which a node registers one prefix after another,
// and another node for all resolvers.
func registrationEvent(o *options, dir string) ([]time.Duration, error) {
	p, err := start(o.program, dir, fmt.Sprintf("%s:%d {\nbind 127.0.0.1\ntsig {\nsecret %s %s\n}\ndnsb {\nns b1 127.0.0.1\nnode old 192.0.2.1\ncut %s old\ndefault old\naccept %[3]s new any for %[5]s\n}\n}\n",
		zone, port, key, secret, cut))
	if err != nil {
		return nil, err
	}
	defer p.stop()
	r := &registration.Registration{Zone: zone, Node: "new", Addresses: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, 2})}, Cuts: []string{cut}, Serial: uint64(time.Now().UnixMilli()), Lease: time.Hour} // #nosec G115 -- since 1970
	took := make([]time.Duration, 0, o.trials)
	for i := range o.trials {
		t := trial{name: "www." + cut, from: sites(i).Addr().Next(), before: "old.lb." + zone, after: "new.lb." + zone}
		if err := t.await(t.before, interval); err != nil {
			return nil, errors.Join(err, p.said())
		}
		r.Prefixes = append(r.Prefixes, registration.Prefix{Prefix: sites(i)})
		r.Serial++
		m, err := r.Message()
		if err != nil {
			return nil, err
		}
		m.SetTsig(key, dns.HmacSHA256, 300, time.Now().Unix())
		sent := make(chan error, 1)
		t.happen = func() error { // as long as it takes is part of the reaction
			go func() {
				c := dns.Client{Net: "tcp", TsigSecret: map[string]string{key: secret}}
				reply, _, err := c.Exchange(m, fmt.Sprintf("127.0.0.1:%d", port))
				if err == nil && reply.Rcode != dns.RcodeSuccess {
					err = fmt.Errorf("registration: %s", dns.RcodeToString[reply.Rcode])
				}
				sent <- err
			}()
			return nil
		}
		d, err := t.run(100 * time.Microsecond)
		if err = errors.Join(err, <-sent); err != nil {
			return nil, errors.Join(err, p.said())
		}
		took = append(took, d)
		time.Sleep(pause)
	}
	return took, nil
}
