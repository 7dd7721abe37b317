// Package tsigfiles watches the 'secrets' files of *tsig*, which CoreDNS reads
// with the Corefile alone: it gives the secrets to its listeners, and these cannot
// take others. When the files have other secrets than those in force, this process
// reloads its Corefile as an operator does, by a signal, since caddy does not keep
// other reloads apart.
//
// It does not take up what it was not asked for: if the Corefile has changed, too,
// the log says that a reload is due. So it does beside *reload*, which follows the
// Corefile no longer after such a signal, as of CoreDNS 1.15.
package tsigfiles

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"reflect"
	"slices"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/caddy/caddyfile"
	"github.com/coredns/coredns/core/dnsserver"
	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/filewatch"
	"github.com/coredns-dnslb/coredns-dnslb/internal/inputfile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reload"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
)

var (
	log       = clog.NewWithPlugin("tsig")
	instances reload.Group
)

// errDue is why the process does not reload by itself.
var errDue = errors.New("the Corefile has to be reloaded by hand")

// watched is the key of what an instance stores when its files are watched.
type watched struct{}

// Watch watches the 'secrets' files of a server block. It is to be called in the
// setup functions of the plugins that need *tsig*, which CoreDNS sets up earlier,
// before they change the secrets: *dnsb* adds other spellings of the names of keys.
func Watch(c *caddy.Controller) {
	running := caddy.Instances()
	if len(running) == 0 {
		return // a Corefile that is validated
	}
	l, ok := c.Get(watched{}).(*loaded)
	if !ok {
		source := running[len(running)-1].Caddyfile() // of the one that is set up
		blocks, err := parse(source.Path(), source.Body())
		if err != nil {
			return // which CoreDNS reports
		}
		l = &loaded{source.Path(), blocks, make(map[int]map[string]string)}
		c.Set(watched{}, l)
		member := instances.Attach(c)
		c.OnStartup(func() error {
			if paths := l.paths(); len(paths) > 0 {
				w, stop := watcher{filewatch.New(paths...), l.differs, l.renew}, make(chan struct{})
				go w.run(stop)
				member.OnStop(func() { close(stop) })
			}
			return nil
		})
	}
	if _, ok := l.inForce[c.ServerBlockIndex]; !ok {
		l.inForce[c.ServerBlockIndex] = maps.Clone(dnsserver.GetConfig(c).TsigSecret)
	}
}

// watcher follows the files of an instance.
type watcher struct {
	files   *filewatch.Set
	differs func() (bool, error) // reports whether they have other secrets than those in force
	renew   func() error         // has the process reload, or says why not
}

// run reloads when there are other secrets: at the first look as well, since the
// files may have changed while this instance was set up. If that cannot be, or fails,
// it logs so every ten minutes.
func (w *watcher) run(stop <-chan struct{}) {
	var failure reminder.Failure
	var err error
	for {
		select {
		case <-stop:
			return
		case <-time.After(w.files.Wait()):
		}
		if w.files.Changed() {
			failed := failure.Recovered() // to be told of each change
			var differs bool
			if differs, err = w.differs(); err == nil && !differs {
				if failed {
					log.Infof("Recovered: secrets of tsig in %s are those in use", w.files)
				}
				continue
			}
			if err == nil {
				err = w.renew()
			}
			if err == nil {
				log.Infof("Found other secrets of tsig in %s, reloading the Corefile", w.files)
				err = errDue // if this instance is still here later
				failure.Failed("")
			}
		} else if !failure.Failing() {
			continue
		}
		switch {
		case !failure.Failed(""):
		case errors.Is(err, errDue):
			log.Warningf("Found other secrets of tsig in %s, using the previous version until the Corefile is reloaded", w.files)
		default:
			log.Errorf("Failed to read secrets of tsig in %s, using the previous version: %v", w.files, err)
		}
	}
}

// loaded is the Corefile of an instance, and the secrets that it has from it.
type loaded struct {
	path    string
	blocks  []caddyfile.ServerBlock
	inForce map[int]map[string]string // by the indices of the server blocks that are watched
}

// secretsFile is a file that a 'secrets' line names.
type secretsFile struct {
	corefile.Position
	path string
}

// files returns the files of a server block.
func (l *loaded) files(block int) (files []secretsFile) {
	d := caddyfile.NewDispenserTokens(l.path, l.blocks[block].Tokens["tsig"])
	for d.Next() {
		if d.Val() == "secrets" && d.NextArg() {
			files = append(files, secretsFile{corefile.PositionOf(&d), d.Val()})
		}
	}
	return files
}

// paths returns the paths of all files.
func (l *loaded) paths() (paths []string) {
	for _, block := range l.watched() {
		for _, file := range l.files(block) {
			paths = append(paths, file.path)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

func (l *loaded) watched() []int { return slices.Sorted(maps.Keys(l.inForce)) }

// differs reads the secrets as a reload does, and reports whether they are others
// than those in force.
func (l *loaded) differs() (bool, error) {
	differs := false
	for _, block := range l.watched() {
		secrets, err := l.read(block)
		if err != nil {
			return false, err
		}
		differs = differs || !maps.Equal(secrets, l.inForce[block])
	}
	return differs, nil
}

// read returns the secrets of a server block.
func (l *loaded) read(block int) (map[string]string, error) {
	tokens := l.blocks[block].Tokens["tsig"]
	if len(tokens) == 0 {
		return nil, nil
	}
	for _, file := range l.files(block) {
		if _, err := inputfile.Read(file.path); err != nil {
			return nil, file.Errorf("%w", err) // *tsig* does not say why
		}
	}
	setup, err := caddy.DirectiveAction("dns", "tsig")
	if err != nil {
		return nil, err
	}
	c := caddy.NewTestController("dns", "") // with a context of its own
	c.Dispenser = caddyfile.NewDispenserTokens(l.path, tokens)
	if err := setup(c); err != nil {
		return nil, corefile.PositionOf(&c.Dispenser).Errorf("*tsig* cannot read '%s': expected keys as tsig-keygen writes them, each name once", c.Val())
	}
	secrets := dnsserver.GetConfig(c).TsigSecret
	d := caddyfile.NewDispenserTokens(l.path, tokens)
	d.Next()
	return secrets, dnsclient.CheckSecrets(corefile.PositionOf(&d), secrets)
}

// renew has the process reload the Corefile with other secrets.
func (l *loaded) renew() error {
	body, err := os.ReadFile(l.path) // #nosec G304 -- of the operator
	if err != nil {
		return errDue // of standard input, or removed
	}
	current, err := parse(l.path, body)
	if err != nil || !reflect.DeepEqual(current, l.blocks) {
		return errDue
	}
	for _, block := range current {
		if len(block.Tokens["reload"]) > 0 {
			return errDue
		}
	}
	return signalReload()
}

func parse(path string, body []byte) ([]caddyfile.ServerBlock, error) {
	return caddyfile.Parse(path, bytes.NewReader(body), nil)
}
