// Package tsigfiles watches the 'secrets' files of *tsig*, which CoreDNS reads
// with the Corefile alone: it gives the secrets to its listeners, and these cannot
// take others. When the files have changed, this process reloads its Corefile as
// an operator does, by a signal, since caddy does not keep other reloads apart.
//
// It does not take up what it was not asked for: if the Corefile has changed, too,
// the log says that a reload is due. So it does beside *reload*, which follows the
// Corefile no longer after such a signal, as of CoreDNS 1.15.
package tsigfiles

import (
	"bytes"
	"errors"
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

// Watch watches the 'secrets' files of the server blocks of an instance that have
// one of the plugins. It is to be called in their setup functions.
func Watch(c *caddy.Controller, plugins ...string) {
	running := caddy.Instances()
	if len(running) == 0 || c.Get(watched{}) != nil {
		return // a Corefile that is validated, or the second block
	}
	c.Set(watched{}, true)
	loaded := running[len(running)-1].Caddyfile() // of the one that is set up
	blocks, err := parse(loaded.Path(), loaded.Body())
	if err != nil {
		return // which CoreDNS reports
	}
	paths := secretsFiles(blocks, plugins)
	if len(paths) == 0 {
		return
	}
	w := watcher{files: filewatch.New(paths...), renew: func() error { return renew(loaded.Path(), blocks) }}
	w.files.Changed() // as *tsig* has read them
	member := instances.Attach(c)
	c.OnStartup(func() error {
		stop := make(chan struct{})
		go w.run(stop)
		member.OnStop(func() { close(stop) })
		return nil
	})
}

// watcher follows the files of an instance.
type watcher struct {
	files *filewatch.Set
	renew func() error // has the process reload, or says why not
}

// run reloads after a change. If that cannot be, or fails, it logs so every ten
// minutes.
func (w *watcher) run(stop <-chan struct{}) {
	var failure reminder.Failure
	var err error
	for {
		select {
		case <-stop:
			return
		case <-time.After(w.files.Wait()):
		}
		changed := w.files.Changed()
		if changed {
			failure.Recovered() // to be told of each change
			if err = w.renew(); err == nil {
				log.Infof("Found other secrets of tsig in %s, reloading the Corefile", w.files)
				err = errDue // if this instance is still here later
				failure.Failed("")
			}
		}
		switch {
		case !changed && !failure.Failing() || !failure.Failed(""):
		case errors.Is(err, errDue):
			log.Warningf("Found other secrets of tsig in %s, using the previous version until the Corefile is reloaded", w.files)
		default:
			log.Errorf("Failed to read secrets of tsig in %s, using the previous version: %v", w.files, err)
		}
	}
}

// renew has the process reload the Corefile with other secrets.
func renew(path string, loaded []caddyfile.ServerBlock) error {
	body, err := os.ReadFile(path) // #nosec G304 -- of the operator
	if err != nil {
		return errDue // of standard input, or removed
	}
	current, err := parse(path, body)
	if err != nil || !reflect.DeepEqual(current, loaded) {
		return errDue
	}
	for _, block := range current {
		if len(block.Tokens["reload"]) > 0 {
			return errDue
		}
	}
	if err := check(path, current); err != nil {
		return err
	}
	return signalReload()
}

// check reads the secrets as a reload does.
func check(path string, blocks []caddyfile.ServerBlock) error {
	for _, block := range blocks {
		tokens := block.Tokens["tsig"]
		if len(tokens) == 0 {
			continue
		}
		setup, err := caddy.DirectiveAction("dns", "tsig")
		if err != nil {
			return err
		}
		c := caddy.NewTestController("dns", "") // with a context of its own
		c.Dispenser = caddyfile.NewDispenserTokens(path, tokens)
		if err := setup(c); err != nil {
			return errors.New("*tsig* cannot read them: expected keys as tsig-keygen writes them, each name once")
		}
		if err := dnsclient.CheckSecrets(corefile.Position{File: path, Line: tokens[0].Line}, dnsserver.GetConfig(c).TsigSecret); err != nil {
			return err
		}
	}
	return nil
}

func parse(path string, body []byte) ([]caddyfile.ServerBlock, error) {
	return caddyfile.Parse(path, bytes.NewReader(body), nil)
}

// secretsFiles returns the 'secrets' files of the server blocks with one of the
// plugins.
func secretsFiles(blocks []caddyfile.ServerBlock, plugins []string) (paths []string) {
	for _, block := range blocks {
		if !slices.ContainsFunc(plugins, func(plugin string) bool { return len(block.Tokens[plugin]) > 0 }) {
			continue
		}
		d := caddyfile.NewDispenserTokens("", block.Tokens["tsig"])
		for d.Next() {
			if d.Val() == "secrets" && d.NextArg() && !slices.Contains(paths, d.Val()) {
				paths = append(paths, d.Val())
			}
		}
	}
	return paths
}
