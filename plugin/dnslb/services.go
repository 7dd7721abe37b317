package dnslb

import (
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/coredns/caddy/caddyfile"
)

// servicesFile is a file of 'server' and 'service' lines.
type servicesFile struct {
	path   string // "": there is none
	looked bool   // the file was looked at
	stamp  stamp  // of what was last looked at
	inventory
}

// stamp tells whether a file has changed.
type stamp struct {
	modified time.Time
	size     int64
	mode     fs.FileMode // it may not have been readable
}

func stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}
	}
	return stamp{info.ModTime(), info.Size(), info.Mode()}
}

// read reads the file if it has changed since it was last looked at, and reports
// whether it holds something else. What it held stays when there is an error.
func (f *servicesFile) read(conf *config) (changed bool, err error) {
	if f.path == "" {
		return false, nil
	}
	now := stampOf(f.path) // before it is read, so that no change is missed
	if f.looked && now == f.stamp {
		return false, nil
	}
	f.looked, f.stamp = true, now
	i, err := readServices(f.path, conf)
	if err != nil {
		return false, err
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
		// Who writes the file anew may not have come to its first line yet.
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
