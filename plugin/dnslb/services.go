package dnslb

import (
	"fmt"
	"os"
	"strings"

	"github.com/coredns/caddy/caddyfile"
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
	l := newLines(&tokens, conf.Zones, conf.probes)
	for _, s := range conf.inventory.services {
		l.known[s.name] = true
	}
	for l.Next() {
		if err := l.line(conf.inventory, l.Val(), l.RemainingArgs()); err != nil {
			return inventory{}, err
		}
	}
	if len(l.servers) == 0 && len(l.services) == 0 {
		// Services go by their lines. A file without any is more likely half written,
		// or lost, than meant.
		return inventory{}, fmt.Errorf("%s holds no 'server' and no 'service' line", path)
	}
	all := conf.inventory.with(l.inventory)
	return all, all.check()
}

// line reads a line of a services file.
func (l *lines) line(corefile inventory, word string, args []string) error {
	switch word {
	case "server":
		if len(args) > 0 {
			if _, ok := corefile.servers[strings.ToLower(args[0])]; ok {
				return l.Errf("server '%s' is in the Corefile too: remove one of the lines", args[0])
			}
		}
		return l.server(args)
	case "service":
		return l.service(args)
	}
	return l.Errf("unknown line '%s'; known: server, service", word)
}
