package latencyprobe

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	clog "github.com/coredns/coredns/plugin/pkg/log"
)

var log = clog.NewWithPlugin(pluginName)

func init() { plugin.Register(pluginName, setup) }

func setup(c *caddy.Controller) error {
	probes, err := parse(c)
	l := &LatencyProbe{probes: probes}
	c.Set(blockKey{c.ServerBlockIndex}, l) // a check of the configuration goes on
	if err != nil {
		return plugin.Error(pluginName, err)
	}
	// In this order, so that the files are written while there are targets.
	l.files = stateFiles.Attach(c)
	l.holder = running.Attach(c)
	l.traces = recorders.Attach(c)

	dnsserver.GetConfig(c).AddPlugin(func(next plugin.Handler) plugin.Handler {
		l.Next = next
		return l
	})
	c.OnStartup(func() error {
		if err := l.openFiles(); err != nil {
			return err
		}
		now := time.Now()
		l.started.Store(&now)
		return nil
	})
	return nil
}

// parse reads all latencyprobe blocks of a server block.
func parse(c *caddy.Controller) (map[string]*probe, error) {
	probes := make(map[string]*probe)
	for c.Next() {
		p := &probe{rtt: icmp{}, interval: defaultInterval, timeout: defaultTimeout}
		switch args := c.RemainingArgs(); len(args) {
		case 0:
		case 1:
			p.name = strings.ToLower(args[0])
		default:
			return probes, c.Err("expected 'latencyprobe [NAME]'")
		}
		if _, ok := probes[p.name]; ok {
			return probes, c.Errf("latencyprobe '%s' is given twice: names tell them apart", p.name)
		}
		probes[p.name] = p

		seen := make(map[string]bool)
		for c.NextBlock() {
			property := c.Val()
			if seen[property] {
				return probes, c.Errf("'%s' is given twice", property)
			}
			seen[property] = true
			if err := p.property(c, property, c.RemainingArgs()); err != nil {
				return probes, err
			}
		}
		if p.timeout > p.interval {
			return probes, c.Errf("timeout %s is longer than interval %s", p.timeout, p.interval)
		}
		if err := errors.Join(claimFile(c, p.state, "state"), claimFile(c, p.record, "record "+p.id())); err != nil {
			return probes, err
		}
	}
	return probes, nil
}

// fileKey is where it is noted what a file is for.
type fileKey struct{ path string }

// claimFile notes what a file is for and fails if another probe of this Corefile
// wants it for something else.
func claimFile(c *caddy.Controller, path, use string) error {
	if path == "" {
		return nil
	}
	if was, ok := c.Get(fileKey{path}).(string); ok && was != use {
		return c.Errf("'%s' is named for two things that differ: give each a file of its own; only 'state', and 'record' of probes by the same method, may share one", path)
	}
	c.Set(fileKey{path}, use)
	return nil
}

var properties = []string{"rtt", "health", "interval", "timeout", "source", "state", "record"}

func (p *probe) property(c *caddy.Controller, property string, args []string) error {
	var err error
	switch property {
	case "rtt":
		p.explicit = true
		if p.rtt, err = parseMethod(args); err != nil {
			return c.Errf("rtt: %v", err)
		}
	case "health":
		if p.health, err = parseMethod(args); err != nil {
			return c.Errf("health: %v", err)
		}
	case "interval":
		p.interval, err = parseDuration(c, property, args, minInterval)
	case "timeout":
		p.timeout, err = parseDuration(c, property, args, minTimeout)
	case "source":
		err = p.parseSource(c, args)
	case "state":
		p.state, err = parseFile(c, property, args)
	case "record":
		p.record, err = parseFile(c, property, args)
	default:
		return c.Errf("unknown property '%s'; known: %s", property, strings.Join(properties, ", "))
	}
	return err
}

func parseDuration(c *caddy.Controller, property string, args []string, least time.Duration) (time.Duration, error) {
	if len(args) != 1 {
		return 0, c.Errf("expected '%s DURATION', for example '%s 5s'", property, property)
	}
	d, err := time.ParseDuration(args[0])
	if err != nil || d < least || d > time.Hour {
		return 0, c.Errf("'%s %s': expected a duration from %s to 1h", property, args[0], least)
	}
	return d, nil
}

// parseFile returns the absolute path of a file to write. Its folder must exist.
func parseFile(c *caddy.Controller, property string, args []string) (string, error) {
	if len(args) != 1 || args[0] == "" {
		return "", c.Errf("expected '%s FILE'", property)
	}
	path := args[0]
	if root := dnsserver.GetConfig(c).Root; !filepath.IsAbs(path) && root != "" {
		path = filepath.Join(root, path)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", c.Errf("'%s %s': %v", property, args[0], err)
	}
	folder := filepath.Dir(path)
	if info, err := os.Stat(folder); err != nil || !info.IsDir() {
		return "", c.Errf("'%s %s': there is no folder '%s': create it, or name another one", property, args[0], folder)
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return "", c.Errf("'%s %s': it is no regular file", property, args[0])
	}
	return path, nil
}

func (p *probe) parseSource(c *caddy.Controller, args []string) error {
	if len(args) == 0 {
		return c.Err("expected 'source ADDRESS...'")
	}
	for _, arg := range args {
		addr, err := netip.ParseAddr(arg)
		if err != nil || addr.IsUnspecified() || addr.IsMulticast() {
			return c.Errf("'source %s': expected an IP address of this machine", arg)
		}
		slot := &p.source4
		if addr = addr.Unmap(); addr.Is6() {
			slot = &p.source6
		}
		if slot.IsValid() {
			return c.Errf("'source %s': one address of each family at most", strings.Join(slices.Clone(args), " "))
		}
		*slot = addr
	}
	return nil
}
