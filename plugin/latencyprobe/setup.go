package latencyprobe

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
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
			return probes, c.Err(corefile.Twice("latencyprobe '"+p.name+"'", "give each probe another name").Error())
		}
		probes[p.name] = p
		if err := corefile.NewReader(p.properties(c)).ReadBlock(&c.Dispenser); err != nil {
			return probes, err
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

// fileKey is the key of the purpose of a file.
type fileKey struct{ path string }

// claimFile notes the purpose of a file, and fails if another probe of this
// Corefile uses the file for another purpose.
func claimFile(c *caddy.Controller, path, purpose string) error {
	if path == "" {
		return nil
	}
	if other, ok := c.Get(fileKey{path}).(string); ok && other != purpose {
		return c.Errf("file '%s' is given for two purposes: only 'state', and 'record' of probes with the same method, may share a file", path)
	}
	c.Set(fileKey{path}, purpose)
	return nil
}

// properties returns the properties of a block, which set those of the probe.
func (p *probe) properties(c *caddy.Controller) []corefile.Property {
	return []corefile.Property{
		{Name: "rtt", Parse: func(l corefile.Line) (err error) {
			p.explicit = true
			p.rtt, err = parseMethod(l.Args)
			return err
		}},
		{Name: "health", Parse: func(l corefile.Line) (err error) {
			p.health, err = parseMethod(l.Args)
			return err
		}},
		{Name: "interval", Usage: "interval DURATION", Example: "interval 5s", Parse: func(l corefile.Line) (err error) {
			p.interval, err = parseDuration(l, minInterval)
			return err
		}},
		{Name: "timeout", Usage: "timeout DURATION", Example: "timeout 1s", Parse: func(l corefile.Line) (err error) {
			p.timeout, err = parseDuration(l, minTimeout)
			return err
		}},
		{Name: "source", Usage: "source ADDRESS...", Parse: p.parseSource},
		{Name: "state", Usage: "state FILE", Parse: func(l corefile.Line) (err error) {
			p.state, err = parseFile(c, l)
			return err
		}},
		{Name: "record", Usage: "record FILE", Parse: func(l corefile.Line) (err error) {
			p.record, err = parseFile(c, l)
			return err
		}},
	}
}

func parseDuration(l corefile.Line, least time.Duration) (time.Duration, error) {
	if len(l.Args) != 1 {
		return 0, corefile.ErrUsage
	}
	return corefile.Durations{Min: least, Max: time.Hour, Example: "5s"}.Parse(l.Property, l.Args[0])
}

// parseFile returns the absolute path of a file to write.
func parseFile(c *caddy.Controller, l corefile.Line) (string, error) {
	if len(l.Args) != 1 || l.Args[0] == "" {
		return "", corefile.ErrUsage
	}
	path, err := corefile.OutputPath(c, l.Property, l.Args[0])
	if err != nil {
		return "", err
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return "", fmt.Errorf("invalid file '%s' for '%s': expected a regular file", l.Args[0], l.Property)
	}
	return filepath.Abs(path)
}

func (p *probe) parseSource(l corefile.Line) error {
	if len(l.Args) == 0 {
		return corefile.ErrUsage
	}
	for _, arg := range l.Args {
		addr, err := netip.ParseAddr(arg)
		if err != nil || addr.IsUnspecified() || addr.IsMulticast() {
			return fmt.Errorf("invalid address '%s': expected an IP address of this machine, such as 192.0.2.1", arg)
		}
		source := &p.source4
		if addr = addr.Unmap(); addr.Is6() {
			source = &p.source6
		}
		if source.IsValid() {
			return errors.New("'source' has two addresses of one family, keep one")
		}
		*source = addr
	}
	return nil
}
