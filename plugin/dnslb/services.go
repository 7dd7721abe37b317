package dnslb

import (
	"fmt"
	"os"

	"github.com/coredns/caddy/caddyfile"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
)

// servicesFile is a file of 'server' and 'service' lines.
type servicesFile struct {
	watchedFile
	inventory
	fits func(inventory) error // to the plugins around; nil as long as these are not known
}

// large is from how many services on a file is taken to be written by a program.
const large = 10

// read reads the file if it has changed, and reports whether it holds something
// else. What it held stays when there is an error, and when a large file has lost
// more than half of its services: it is more likely cut off than meant.
func (f *servicesFile) read(conf *config) (changed bool, err error) {
	if !f.changed() {
		return false, nil
	}
	i, err := readServices(f.path, conf)
	if err != nil {
		return false, err
	}
	if f.fits != nil {
		if err := f.fits(i); err != nil {
			return false, err
		}
	}
	if before := len(f.services); before >= large && 2*len(i.services) < before {
		return false, fmt.Errorf("%s would shrink with the Corefile from %d to %d services, by more than half: reload the Corefile if that is right", f.path, before, len(i.services))
	}
	f.inventory = i
	return true, nil
}

// readServices reads a services file. It returns what the file and the Corefile
// hold together.
func readServices(path string, conf *config) (inventory, error) {
	f, err := os.Open(path) // #nosec G304 -- the operator names it
	if err != nil {
		return inventory{}, fmt.Errorf("services: %w", err)
	}
	defer f.Close()
	tokens := caddyfile.NewDispenser(path, f)
	p := newInventoryParser(conf.Zones, conf.probes)
	p.corefile = conf.inventory.servers
	for _, s := range conf.inventory.services {
		p.known[s.name] = true
	}
	if err := corefile.NewReader(p.properties()).ReadFile(&tokens); err != nil {
		return inventory{}, err
	}
	if len(p.inventory.servers) == 0 && len(p.inventory.services) == 0 {
		// Services go by their lines. A file without any is more likely half written,
		// or lost, than meant.
		return inventory{}, fmt.Errorf("no 'server' and no 'service' line in %s", path)
	}
	all := conf.inventory.with(p.inventory)
	return all, all.check()
}
