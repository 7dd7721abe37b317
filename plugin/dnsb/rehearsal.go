package dnsb

import (
	"net/netip"

	"github.com/coredns/coredns/plugin"
)

// rehearse makes the first snapshot as the start does, of what the store holds,
// but probes no node and leaves the store as it is. It also finds the nodes of each
// cut; that there are none is no error. That static nodes of a cut differ in client
// subnets is one, though the server starts.
func (d *DNSB) rehearse() error {
	z := newZone(d.conf.zone)
	defer z.registry.Close()
	if err := z.registry.Preview(d.conf.store, d.conf.leaseMax); err != nil {
		return plugin.Error(pluginName, d.conf.block.Errorf("%w", err))
	}
	if d.probe != nil {
		d.probe = func() prober { return idleProber{} }
	}
	d.load(z)
	for cut := range d.snapshot.Load().cuts {
		_, _ = d.Explain(cut, netip.IPv4Unspecified())
		_, _ = d.Explain(cut, netip.IPv6Unspecified())
	}
	if err := d.conf.checkClientSubnets(); err != nil {
		return plugin.Error(pluginName, err)
	}
	return nil
}

// idleProber probes nothing.
type idleProber struct{}

var _ prober = idleProber{}

func (idleProber) replace(_, _ []probeTarget)               {}
func (idleProber) changedNodes() []string                   { return nil }
func (idleProber) result(probeTarget) (probeResult, string) { return notProbed, "" }
func (idleProber) changed() <-chan struct{}                 { return nil }
func (idleProber) close()                                   {}
