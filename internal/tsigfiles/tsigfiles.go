// Package tsigfiles watches the 'secrets' files of *tsig*, which CoreDNS reads
// with the Corefile alone: it gives the secrets to its listeners, and these cannot
// take others. This process cannot reload its Corefile by itself either, since
// caddy does not keep two reloads apart, and an operator may ask for one at any
// time. So the log says that a reload is due.
package tsigfiles

import (
	"bytes"
	"slices"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/caddy/caddyfile"
	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/coredns-dnslb/coredns-dnslb/internal/filewatch"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reload"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reminder"
)

var (
	log       = clog.NewWithPlugin("tsig")
	instances reload.Group
)

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
	paths := secretsFiles(running[len(running)-1].Caddyfile(), plugins) // of the one that is set up
	if len(paths) == 0 {
		return
	}
	files, member := filewatch.New(paths...), instances.Attach(c)
	files.Changed() // as *tsig* has read them
	c.OnStartup(func() error {
		stop := make(chan struct{})
		go watch(files, stop)
		member.OnStop(func() { close(stop) })
		return nil
	})
}

// watch logs that files have changed, and every ten minutes that they have.
func watch(files *filewatch.Set, stop <-chan struct{}) {
	var change reminder.Failure
	for {
		select {
		case <-stop:
			return
		case <-time.After(files.Wait()):
		}
		changed := files.Changed()
		if changed {
			change.Recovered() // to be told of each change
		}
		if (changed || change.Failing()) && change.Failed("") {
			log.Warningf("Secrets files %q have changed, using the previous version until the Corefile is reloaded", files.Paths())
		}
	}
}

// secretsFiles returns the 'secrets' files of the server blocks with one of the
// plugins.
func secretsFiles(corefile caddy.Input, plugins []string) (paths []string) {
	blocks, err := caddyfile.Parse(corefile.Path(), bytes.NewReader(corefile.Body()), nil)
	if err != nil {
		return nil // which CoreDNS reports
	}
	for _, block := range blocks {
		if !slices.ContainsFunc(plugins, func(plugin string) bool { return len(block.Tokens[plugin]) > 0 }) {
			continue
		}
		d := caddyfile.NewDispenserTokens(corefile.Path(), block.Tokens["tsig"])
		for d.Next() {
			if d.Val() == "secrets" && d.NextArg() && !slices.Contains(paths, d.Val()) {
				paths = append(paths, d.Val())
			}
		}
	}
	return paths
}
