package dnslb

import "github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"

// rehearse makes the first snapshot and rankings as the start does, and what is
// told to other nodes and to DNS-B, but measures nothing and tells nobody.
func (d *DNSLB) rehearse() error {
	if err := d.checkPermissions(); err != nil {
		return err
	}
	d.state = newBlockState()
	defer d.state.close()
	d.sources.zones.Rehearse()
	d.load(unmeasured{})
	_, _ = d.blockSettings(), registrarSettings(d.config)
	return nil
}

// unmeasured are targets of which nothing is known.
type unmeasured struct{}

var _ measurements = unmeasured{}

func (unmeasured) Set([]latencyprobe.Target)                      {}
func (unmeasured) Status(latencyprobe.Target) latencyprobe.Status { return latencyprobe.Status{} }
func (unmeasured) Changed() <-chan struct{}                       { return nil }
func (unmeasured) Changes() []latencyprobe.Target                 { return nil }
func (unmeasured) Close()                                         {}
