package latencyprobe

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reload"
	"github.com/coredns-dnslb/coredns-dnslb/internal/setupcheck"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe/prober"
)

var log = clog.NewWithPlugin(pluginName)

func init() { plugin.Register(pluginName, setup) }

// instances ends the watches of a Corefile instance with it.
var instances reload.Group

func setup(c *caddy.Controller) error {
	probes, err := parse(c)
	l := &LatencyProbe{probes: probes}
	c.Set(blockKey{c.ServerBlockIndex}, l) // even after an error: -validate sets up the plugins that need it
	if err != nil {
		return plugin.Error(pluginName, err)
	}
	// An instance ends in this order: a state file is written while its
	// measurements go on, a trace has all samples.
	l.stateHolder = stateFiles.Attach(c)
	instance := instances.Attach(c)
	l.traceHolder = traces.Attach(c)

	dnsserver.GetConfig(c).AddPlugin(func(next plugin.Handler) plugin.Handler {
		l.Next = next
		return l
	})
	setupcheck.Rehearse(c, l.checkFiles)
	c.OnStartup(func() error {
		l.startCounters()
		instance.OnStop(l.closeWatches)
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
func parse(c *caddy.Controller) (map[string]*settings, error) {
	probes := make(map[string]*settings)
	var failed []error
	for c.Next() {
		block := corefile.PositionOf(&c.Dispenser)
		s := &settings{rtt: prober.ICMP{}, interval: defaultInterval, timeout: defaultTimeout}
		args := c.RemainingArgs()
		if len(args) > 0 {
			s.name = strings.ToLower(args[0])
		}
		if _, ok := probes[s.name]; len(args) > 1 {
			failed = append(failed, block.Errorf("expected 'latencyprobe [NAME]'"))
		} else if ok {
			failed = append(failed, block.Errorf("%w", corefile.Twice("latencyprobe '"+s.name+"'", "give each probe another name")))
		}
		probes[s.name] = s
		lines := corefile.NewReader(s.properties(c))
		failed = append(failed, lines.ReadBlock(&c.Dispenser), s.check(c, lines))
	}
	return probes, corefile.Join(failed...)
}

// check checks what only the whole block shows. Durations of lines with an error are zero,
// paths empty, and methods nil.
func (s *settings) check(c *caddy.Controller, lines *corefile.Reader) error {
	var failed []error
	if s.timeout > s.interval && s.interval != 0 {
		at, ok := lines.Given("timeout")
		if !ok {
			at, _ = lines.Given("interval")
		}
		failed = append(failed, at.Errorf("timeout %s is longer than interval %s, shorten it", s.timeout, s.interval))
	}
	files := map[string]string{"state": s.statePath, "record": s.tracePath}
	for _, property := range []string{"state", "record"} {
		purpose := property
		if property == "record" && s.rtt != nil {
			purpose += " " + s.id()
		}
		if !reserveFile(c, files[property], purpose) {
			at, _ := lines.Given(property)
			failed = append(failed, at.Errorf("file '%s' is given for two purposes: only 'state', and 'record' of probes with the same method, may share a file", files[property]))
		}
	}
	return corefile.Join(failed...)
}

// fileKey is the key of the purpose of a file.
type fileKey struct{ path string }

// reserveFile notes the purpose of a file, and reports whether no other probe of this
// Corefile uses the file for another purpose.
func reserveFile(c *caddy.Controller, path, purpose string) bool {
	if path == "" {
		return true
	}
	if other, ok := c.Get(fileKey{path}).(string); ok && other != purpose {
		return false
	}
	c.Set(fileKey{path}, purpose)
	return true
}

// properties returns the properties of a block, which set s.
func (s *settings) properties(c *caddy.Controller) []corefile.Property {
	return []corefile.Property{
		{Name: "rtt", Parse: func(l corefile.Line) (err error) {
			s.rttGiven = true
			s.rtt, err = prober.Parse(l.Args)
			return err
		}},
		{Name: "health", Parse: func(l corefile.Line) (err error) {
			s.health, err = prober.Parse(l.Args)
			return err
		}},
		{Name: "interval", Usage: "interval DURATION", Example: "interval 5s", Parse: func(l corefile.Line) (err error) {
			s.interval, err = parseDuration(l, minInterval, "5s")
			return err
		}},
		{Name: "timeout", Usage: "timeout DURATION", Example: "timeout 1s", Parse: func(l corefile.Line) (err error) {
			s.timeout, err = parseDuration(l, minTimeout, "1s")
			return err
		}},
		{Name: "source", Usage: "source ADDRESS...", Example: "source 192.0.2.1", Parse: s.parseSource},
		{Name: "state", Usage: "state FILE", Example: "state /var/lib/coredns/latencyprobe", Parse: func(l corefile.Line) (err error) {
			s.statePath, err = parseFile(c, l)
			return err
		}},
		{Name: "record", Usage: "record FILE", Example: "record /var/lib/coredns/trace.csv", Parse: func(l corefile.Line) (err error) {
			s.tracePath, err = parseFile(c, l)
			return err
		}},
		{Name: "target-metrics", Usage: "target-metrics off", Parse: func(l corefile.Line) error {
			if len(l.Args) != 1 || l.Args[0] != "off" {
				return corefile.ErrUsage
			}
			s.unlisted = true
			return nil
		}},
	}
}

func parseDuration(l corefile.Line, least time.Duration, example string) (time.Duration, error) {
	if len(l.Args) != 1 {
		return 0, corefile.ErrUsage
	}
	return corefile.Durations{Min: least, Max: time.Hour, Example: example}.Parse(l.Property, l.Args[0])
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
	return filepath.Abs(path)
}

func (s *settings) parseSource(l corefile.Line) error {
	if len(l.Args) == 0 {
		return corefile.ErrUsage
	}
	for _, arg := range l.Args {
		addr, err := netip.ParseAddr(arg)
		if err != nil || addr.IsUnspecified() || addr.IsMulticast() {
			return fmt.Errorf("invalid address '%s': expected an IP address of this machine, such as 192.0.2.1", arg)
		}
		source := &s.source4
		if addr = addr.Unmap(); addr.Is6() {
			source = &s.source6
		}
		if source.IsValid() {
			return errors.New("'source' has two addresses of one family, keep one")
		}
		*source = addr
	}
	return nil
}
