package dnslb

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsclient"
	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/inputfile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/surveymsg"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb/surveyor"
)

func (p *parser) services(l corefile.Line) (err error) {
	p.servicesPath, err = corefile.InputPath(p.c, l)
	if p.servicesPath != "" && err != nil { // the running instance may have read it
		p.noServices, err = l.At.Errorf("%w", err), nil
	}
	return err
}

func (p *parser) ttl(l corefile.Line) error {
	if len(l.Args) != 2 {
		return corefile.ErrUsage
	}
	var ttl [2]uint32
	for i, arg := range l.Args {
		d, err := corefile.Durations{Min: time.Second, Max: maxTTL * time.Second, Example: "20s"}.Parse(l.Property, arg)
		if err != nil {
			return err
		}
		if d%time.Second != 0 {
			return fmt.Errorf("invalid duration '%s' for 'ttl': expected whole seconds, such as 20s", arg)
		}
		ttl[i] = uint32(d / time.Second) // #nosec G115 -- bounded above
	}
	p.conf.ttlLow, p.conf.ttlHigh = ttl[0], ttl[1]
	if ttl[0] > ttl[1] {
		return fmt.Errorf("invalid ttl '%s %s': the lower bound comes first", l.Args[0], l.Args[1])
	}
	return nil
}

func (p *parser) allDown(l corefile.Line) (err error) {
	switch {
	case len(l.Args) == 0:
		return corefile.ErrUsage
	case len(l.Args) == 1 && l.Args[0] == "open":
		return nil
	case len(l.Args) == 1 && l.Args[0] == "refuse":
		p.conf.allDown.refuse = true
		return nil
	}
	p.conf.allDown.addrs, err = corefile.Addresses(l.Args, dnsmsg.IsHost)
	return err
}

func (p *parser) admin(l corefile.Line) error {
	if len(l.Args) != 1 {
		return corefile.ErrUsage
	}
	p.conf.admin = newAdminFile(p.path(l.Args[0]), p.conf.Zones[0])
	if err := p.conf.admin.Load(); err != nil {
		// A server that does not start for a temporary override is worse.
		log.Errorf("Failed to load %s, keeping the overrides from before the reload, if any: %v", p.conf.admin, err)
	}
	return nil
}

func (p *parser) explain(l corefile.Line) (err error) {
	p.conf.explainTo, err = corefile.Prefixes(l.Args)
	return err
}

func (p *parser) node(l corefile.Line) (err error) {
	if len(l.Args) < 2 {
		return corefile.ErrUsage
	}
	if p.conf.Node, err = corefile.Label("node", l.Args[0]); err != nil {
		return err
	}
	p.conf.addresses, err = corefile.Addresses(l.Args[1:], dnsmsg.IsHost)
	return err
}

func (p *parser) near(l corefile.Line) (err error) {
	if len(l.Args) == 0 {
		return corefile.ErrUsage
	}
	p.files.near = append(p.files.near, l.Args)
	if len(l.Args) == 1 && !looksLikePrefix(l.Args[0]) {
		p.files.nearPaths = append(p.files.nearPaths, p.path(l.Args[0]))
	}
	p.conf.near, err = appendPrefixes(p.conf.near, l.Args, p.path)
	return err
}

// appendPrefixes appends the prefixes of a 'near' line, which may name a file. Beside an
// error it returns those that are right.
func appendPrefixes(prefixes []registration.Prefix, args []string, path func(string) string) ([]registration.Prefix, error) {
	list := prefixList{prefixes: prefixes, seen: make(map[netip.Prefix]bool, len(prefixes))}
	for _, prefix := range prefixes {
		list.seen[prefix.Prefix] = true
	}
	var err error
	if len(args) == 1 && !looksLikePrefix(args[0]) {
		if err = list.addFile(path(args[0])); err != nil {
			err = fmt.Errorf("'near %s': %w", args[0], err)
		}
	} else {
		err = list.add(args)
	}
	return list.prefixes, err
}

// prefixList is prefixes, each once.
type prefixList struct {
	prefixes []registration.Prefix
	seen     map[netip.Prefix]bool
}

// add adds the prefixes of a line.
func (p *prefixList) add(words []string) error {
	for _, word := range words {
		prefix, err := parsePrefix(word)
		if err != nil {
			return err
		}
		if p.seen[prefix.Prefix] {
			return corefile.Twice("prefix "+prefix.Prefix.String(), "name it once")
		}
		p.seen[prefix.Prefix] = true
		p.prefixes = append(p.prefixes, prefix)
	}
	return nil
}

// addFile adds the prefixes of a file, which has any number of them a line; '#' starts a
// comment. Errors name the line.
func (p *prefixList) addFile(name string) error {
	content, err := inputfile.ReadText(name)
	if err != nil {
		return err
	}
	before := len(p.prefixes)
	if err := corefile.EachLine(name, content, func(_ int, words []string) error { return p.add(words) }); err != nil {
		return err
	}
	if len(p.prefixes) == before {
		return fmt.Errorf("no prefix in %s", name)
	}
	return nil
}

// looksLikePrefix reports whether an argument is a prefix, right or wrong, and not a
// file.
func looksLikePrefix(arg string) bool {
	return arg == "" || strings.ContainsAny(arg, ":!") || strings.IndexAny(arg, "0123456789") == 0
}

// parsePrefix reads PREFIX or !PREFIX.
func parsePrefix(s string) (registration.Prefix, error) {
	text, negated := strings.CutPrefix(s, "!")
	prefix, err := corefile.Prefix(text)
	return registration.Prefix{Prefix: prefix, Negated: negated}, err
}

func (p *parser) location(l corefile.Line) (err error) {
	if len(l.Args) != 2 {
		return corefile.ErrUsage
	}
	if p.conf.location, err = registration.ParseLocation(l.Args[0], l.Args[1]); err != nil {
		return fmt.Errorf("location: %w", err)
	}
	return nil
}

func (p *parser) register(l corefile.Line) error {
	if len(l.Args) == 0 {
		return corefile.ErrUsage
	}
	for _, arg := range l.Args {
		dnsb, err := dnsclient.ParseEndpoint(arg)
		if err != nil {
			return err
		}
		if slices.Contains(p.conf.dnsbs, dnsb) {
			return corefile.Twice("DNS-B '"+arg+"'", "name it once")
		}
		p.conf.dnsbs = append(p.conf.dnsbs, dnsb)
	}
	return nil
}

func (p *parser) ca(l corefile.Line) (err error) {
	if len(l.Args) != 1 {
		return corefile.ErrUsage
	}
	p.files.caPath = p.path(l.Args[0])
	if p.conf.ca, err = dnsclient.ReadCA(p.files.caPath); err != nil {
		return fmt.Errorf("'ca %s': %w", l.Args[0], err)
	}
	return nil
}

// key reads FILE or NAME SECRET.
func (p *parser) key(l corefile.Line) (err error) {
	switch len(l.Args) {
	case 1:
		p.files.keyPath = p.path(l.Args[0])
		p.conf.key, err = dnsclient.ReadKey(p.files.keyPath)
	case 2:
		p.conf.key, err = dnsclient.NewKey(l.Args[0], "", l.Args[1])
	default:
		return corefile.ErrUsage
	}
	if err != nil {
		return fmt.Errorf("'key %s': %w", l.Args[0], err)
	}
	return nil
}

func (p *parser) lease(l corefile.Line) (err error) {
	if len(l.Args) != 1 {
		return corefile.ErrUsage
	}
	p.conf.lease, err = corefile.Durations{Min: minLease, Max: maxLease, Example: "30m"}.Parse(l.Property, l.Args[0])
	return err
}

func (p *parser) deputy(l corefile.Line) error {
	if len(l.Args) == 0 {
		return corefile.ErrUsage
	}
	for _, arg := range l.Args {
		node, err := corefile.Label("node", arg)
		if err != nil {
			return err
		}
		if slices.Contains(p.conf.deputies, node) {
			return corefile.Twice("deputy '"+node+"'", "name it once")
		}
		p.conf.deputies = append(p.conf.deputies, node)
	}
	return nil
}

func (p *parser) survey(l corefile.Line) error {
	o, err := surveymsg.ParseNodeOptions(l, surveyor.DefaultBudget)
	p.conf.survey = &o
	return err
}

// viewKey reads the name of a key of tsig. Earlier versions read FILE or NAME
// SECRET, as 'key' does.
func (p *parser) viewKey(l corefile.Line) error {
	const remedy = "add 'tsig { %s }' to this server block and write 'view-key %s'"
	if len(l.Args) == 2 {
		return fmt.Errorf("expected 'view-key NAME': "+remedy, "secret "+l.Args[0]+" SECRET", l.Args[0])
	}
	if len(l.Args) != 1 {
		return corefile.ErrUsage
	}
	name, cfg := l.Args[0], dnsserver.GetConfig(p.c)
	if p.conf.port == "" {
		return fmt.Errorf("'view-key': views are shared over plain TCP, and this server block does not listen for plain DNS: add '%s' to its zones", strings.TrimSuffix(p.conf.Zones[0], "."))
	}
	secret, ok := cfg.TsigSecret[plugin.Name(name).Normalize()]
	if !ok {
		if key, err := dnsclient.ReadKey(p.path(name)); err == nil {
			return fmt.Errorf("'view-key %s' is a file: "+remedy, name, "secrets "+p.path(name), key.Name)
		}
		return fmt.Errorf("unknown key '%s': "+remedy, name, "secret "+name+" SECRET", name)
	}
	var err error
	if p.conf.viewKey, err = dnsclient.NewKey(name, "", secret); err != nil && !errors.Is(err, dnsclient.ErrSecret) { // of all keys of tsig, checkBlock tells that
		return fmt.Errorf("'view-key %s': %w", name, err)
	}
	return nil
}

func (p *parser) path(name string) string { return corefile.Path(p.c, name) }
