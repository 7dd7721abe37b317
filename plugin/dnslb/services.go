package dnslb

import (
	"fmt"
	"sync/atomic"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/filewatch"
	"github.com/coredns-dnslb/coredns-dnslb/internal/inputfile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/plural"
)

// servicesFile is a file of 'server' and 'service' lines. Its value is what the
// file and the Corefile hold together.
type servicesFile struct {
	*filewatch.Loader[inventory]
	path   string
	zones  []string
	probes []string
	base   inventory // of the Corefile

	registers bool // the block has 'register'

	// content is what was read last without an error, for a reload that finds a file
	// with an error.
	content atomic.Pointer[compressed]

	// accept checks an inventory against the backend plugins; nil as long as
	// these are not known.
	accept func(inventory) error
}

// newServicesFile returns a services file that has not been loaded yet.
func newServicesFile(path string, conf *config, registers bool) *servicesFile {
	f := &servicesFile{path: path, zones: conf.Zones, probes: conf.probes, base: conf.inventory, registers: registers}
	f.Loader = filewatch.NewLoader("services file", f.read, log, func(err error) { countReload(f.zones[0], "services", err) }, path)
	return f
}

// Poll loads the file if it has changed, and reports whether its value did.
func (f *servicesFile) Poll() bool {
	if !f.Loader.Poll() {
		return false
	}
	i := f.Value()
	log.Infof("Reloaded %s: %s, %s", f, plural.Of(len(i.servers), "server"), plural.Of(len(i.services), "service"))
	return true
}

// large is from how many services on a file is taken to be written by a program.
const large = 10

// read reads the file. A large one that has lost more than half of its services
// is an error: it is more likely cut off than meant.
func (f *servicesFile) read() (inventory, error) {
	content, err := inputfile.ReadText(f.path)
	if err != nil {
		return inventory{}, fmt.Errorf("read services file: %w", err)
	}
	i, err := f.parse(content)
	if err == nil && f.accept != nil {
		err = f.accept(i)
	}
	if err != nil {
		return inventory{}, err
	}
	if previous := len(f.Value().services); previous >= large && 2*len(i.services) < previous {
		return inventory{}, fmt.Errorf("only %d of %d services would remain, less than half, those of the Corefile included: reload the Corefile if that is right", len(i.services), previous)
	}
	saved, err := compress(content)
	if err != nil {
		return inventory{}, err
	}
	f.content.Store(&saved)
	return i, nil
}

// resume parses what another instance has read.
func (f *servicesFile) resume(other *servicesFile) error {
	saved := other.content.Load()
	content, err := saved.text()
	if err != nil {
		return err
	}
	i, err := f.parse(content)
	if err == nil {
		f.content.Store(saved)
		f.Resume(i, other.Status().Loaded)
	}
	return err
}

func (f *servicesFile) parse(content []byte) (inventory, error) {
	p := newInventoryParser(f.zones, f.probes)
	p.corefile = f.base.servers
	for _, s := range f.base.services {
		p.known[s.name] = true
	}
	failed := corefile.NewReader(p.properties()).ReadFile(f.path, content)
	if failed == nil && len(p.inventory.servers) == 0 && len(p.inventory.services) == 0 {
		// More likely half written or lost than meant.
		return inventory{}, fmt.Errorf("no 'server' and no 'service' line in %s", f.path)
	}
	all := f.base.with(p.inventory)
	return all, corefile.Join(failed, p.checkBeside(f.registers), all.check())
}
