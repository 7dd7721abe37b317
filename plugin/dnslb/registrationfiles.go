package dnslb

import (
	"fmt"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/filewatch"
)

// registrationFiles are the files that a block names for the registration of its
// node: key, authorities and prefixes. Their value is the config with what they hold.
type registrationFiles struct {
	keyPath, caPath string // "": not in a file
	near            [][]string
	nearPaths       []string
	path            func(name string) string
}

// loader returns what follows the files of a config, nil if there are none.
func (f *registrationFiles) loader(conf config) *filewatch.Loader[config] {
	paths := f.nearPaths
	for _, path := range []string{f.keyPath, f.caPath} {
		if path != "" {
			paths = append(paths, path)
		}
	}
	if len(paths) == 0 {
		return nil
	}
	read := func() (next config, err error) {
		next = conf
		if f.keyPath != "" {
			if next.key, err = dnsclient.ReadKey(f.keyPath); err != nil {
				return next, fmt.Errorf("key file %q: %w", f.keyPath, err)
			}
		}
		if f.caPath != "" {
			if next.ca, err = dnsclient.ReadCA(f.caPath); err != nil {
				return next, fmt.Errorf("CA file %q: %w", f.caPath, err)
			}
		}
		if len(f.nearPaths) > 0 {
			next.near = nil
			for _, args := range f.near {
				if next.near, err = appendPrefixes(next.near, args, f.path); err != nil {
					return next, err
				}
			}
		}
		return next, next.checkRegistration()
	}
	return filewatch.NewLoader("files of the registration", read, log, func(err error) { countReload(conf.Zones[0], "registration", err) }, paths...)
}

// pollRegistration reads the files of the registration if they have changed, and
// tells all DNS-Bs what they hold now.
func (d *DNSLB) pollRegistration() {
	f := d.registrationFiles
	if f == nil || !f.Poll() {
		return
	}
	log.Infof("%sReloaded %s", d.prefix(), f)
	conf := f.Value()
	conf.ds = d.ds
	d.registered.Store(&conf)
	d.configureBlock()
}

// registers returns the config of what is registered now.
func (d *DNSLB) registers() config {
	if conf := d.registered.Load(); conf != nil {
		return *conf
	}
	return d.config
}
