package latencyprobe

import (
	"fmt"
	"net/netip"
	"time"
)

const (
	defaultInterval = 5 * time.Second
	defaultTimeout  = time.Second
	// An address is probed at most once a second, so a shorter interval would
	// not be one.
	minInterval = time.Second
	minTimeout  = 10 * time.Millisecond
)

// probe is a configured way to measure. It is immutable.
type probe struct {
	name     string
	explicit bool   // rtt was given
	rtt      method // what ranks
	health   method // what says up or down; nil: rtt does
	interval time.Duration
	timeout  time.Duration
	source4  netip.Addr
	source6  netip.Addr
	state    string // the file to keep what is known in, as an absolute path
	record   string // the file to append samples to, likewise
}

// of returns the probe as it measures a target.
func (p *probe) of(t Target) *probe {
	if t.Check == (Check{}) {
		return p
	}
	checked := *p
	checked.rtt, checked.health = dnsQuery{t.Check.Port, t.Check.Name, t.Check.Type, true}, nil
	return &checked
}

func (p *probe) source(addr netip.Addr) netip.Addr {
	if addr.Is4() {
		return p.source4
	}
	return p.source6
}

// id tells probes apart whose measurements do not compare. How often they are
// taken does not belong to it.
func (p *probe) id() string { return fmt.Sprintf("%T%v %T%v", p.rtt, p.rtt, p.health, p.health) }
