package dnsb

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coredns/coredns/core/dnsserver"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/inputfile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
)

func (p *parser) ns(l corefile.Line) error {
	if len(l.Args) < 2 {
		return corefile.ErrUsage
	}
	name, err := p.nameBelow(l.Args[0])
	if err != nil {
		return err
	}
	if p.conf.isReserved(name) {
		return p.reserved(l.Args[0])
	}
	if slices.ContainsFunc(p.conf.servers, func(s nameserver) bool { return s.name == name }) {
		return corefile.Twice("ns '"+l.Args[0]+"'", "put all its addresses on one line")
	}
	addrs, err := corefile.Addresses(l.Args[1:], registration.IsNodeAddress)
	if err != nil {
		return err
	}
	p.conf.servers = append(p.conf.servers, nameserver{name, addrs})
	return nil
}

func (p *parser) accept(l corefile.Line) error {
	args := l.Args
	var signs, survey bool
	for n := len(args); n > 0 && (args[n-1] == "ds" && !signs || args[n-1] == "survey" && !survey); n = len(args) {
		signs, survey = signs || args[n-1] == "ds", survey || args[n-1] == "survey"
		args = args[:n-1]
	}
	cutsFrom := slices.Index(args, "for")
	scope, cuts := args, []string(nil)
	if cutsFrom >= 0 {
		scope, cuts = args[:cutsFrom], args[cutsFrom+1:]
	}
	if len(scope) < 3 || cutsFrom >= 0 && len(cuts) == 0 {
		return corefile.ErrUsage
	}

	node, err := p.declare(scope[1])
	if err != nil {
		return err
	}
	if survey && p.surveyor == (corefile.Position{}) {
		p.surveyor = l.At
	}
	key, err := corefile.Name(scope[0])
	if err != nil {
		return err
	}
	a := &acceptRule{key: key, node: node, ds: signs, survey: survey, at: l.At}
	for _, arg := range scope[2:] {
		if arg == "any" {
			a.any = true
			continue
		}
		prefix, err := corefile.Prefix(arg)
		if err != nil {
			return err
		}
		a.prefixes.Insert(prefix)
	}
	for _, arg := range cuts {
		cut, err := p.cutName(arg)
		if err != nil {
			return err
		}
		a.cuts = append(a.cuts, cut)
	}

	secrets := dnsserver.GetConfig(p.c).TsigSecret
	if len(secrets) == 0 {
		return fmt.Errorf("'accept' needs tsig in the server block: add 'tsig { secret %s SECRET }'", a.key)
	}
	if _, ok := secrets[a.key]; !ok {
		return fmt.Errorf("unknown key '%s': add 'secret %s SECRET' to tsig in the server block", scope[0], a.key)
	}
	// miekg/dns looks for a key by its name as it was sent. Names have no case, but
	// all spellings of one are too many.
	for _, spelling := range []string{dns.Fqdn(scope[0]), strings.ToUpper(a.key)} {
		secrets[spelling] = secrets[a.key]
	}
	slices.Sort(a.cuts)
	p.conf.accepts = append(p.conf.accepts, a)
	p.conf.rules[a.node] = append(p.conf.rules[a.node], a)
	p.conf.keys[a.key] = true
	return nil
}

func (p *parser) node(l corefile.Line) error {
	args, deputies, location, subnets := l.Args, []string(nil), "", false
	if len(args) < 2 {
		return corefile.ErrUsage
	}
	name, err := p.declare(args[0])
	if err != nil {
		return err
	}
	if i := optionAt(args, "client-subnets"); i > 0 {
		if i < len(args)-1 {
			return fmt.Errorf("unknown option '%s': expected nothing after 'client-subnets'", args[i+1])
		}
		args, subnets = args[:i], true
	}
	if i := optionAt(args, "deputy"); i > 0 {
		args, deputies = args[:i], args[i+1:]
		if len(deputies) == 0 || slices.Contains(deputies, "location") {
			return corefile.ErrUsage
		}
	}
	if i := optionAt(args, "location"); i > 0 {
		if len(args) != i+3 {
			return corefile.ErrUsage
		}
		if location, err = registration.ParseLocation(args[i+1], args[i+2]); err != nil {
			return fmt.Errorf("location: %w", err)
		}
		args = args[:i]
	}
	if len(args) < 2 {
		return corefile.ErrUsage
	}
	if _, ok := p.conf.statics[name]; ok {
		return corefile.Twice("node '"+name+"'", "put all its addresses on one line")
	}
	addrs, err := corefile.Addresses(args[1:], registration.IsNodeAddress)
	if err != nil {
		return err
	}
	r := &registration.Registration{Zone: p.conf.zone, Node: name, Addresses: addrs, Location: location, ClientSubnets: subnets}
	p.conf.statics[name] = r
	return p.addNodes(l, deputies, &r.Deputies)
}

// declare returns the name of a node that an 'accept' or 'node' line is about. Other lines
// may name the node, even if this one has an error: they are not wrong.
func (p *parser) declare(text string) (string, error) {
	name, err := corefile.Label("node", text)
	if err == nil {
		p.conf.declared[name] = true
	}
	return name, err
}

// optionAt returns where an option is in a 'node' line, 0 if the line does not have it.
// The name of the node, the first of args, may be the same word.
func optionAt(args []string, option string) int {
	return slices.Index(args[min(1, len(args)):], option) + 1
}

func (p *parser) cut(l corefile.Line) error {
	if len(l.Args) < 2 {
		return corefile.ErrUsage
	}
	name, err := p.cutName(l.Args[0])
	if err != nil {
		return err
	}
	if _, ok := p.conf.cuts[name]; ok {
		return corefile.Twice("cut '"+l.Args[0]+"'", "put all its nodes on one line")
	}
	if other := p.conf.cutTree.nested(name); other != "" {
		return fmt.Errorf("cut '%s' and cut '%s': one is below the other, keep one of them", l.Args[0], other)
	}
	nodes := make([]string, 0, len(l.Args)-1)
	err = p.addNodes(l, l.Args[1:], &nodes)
	p.conf.cuts[name], p.cuts[name] = nodes, l.At
	p.conf.cutTree.add(name)
	return err
}

func (p *parser) prefix(l corefile.Line) error {
	if len(l.Args) < 2 {
		return corefile.ErrUsage
	}
	prefix, err := corefile.Prefix(l.Args[0])
	if err != nil {
		return err
	}
	if first, ok := p.prefixes[prefix]; ok {
		return corefile.Twice("prefix "+prefix.String(), fmt.Sprintf("put all its nodes on line %d, best first", first.Line))
	}
	p.prefixes[prefix] = l.At
	nodes := slices.Clone(l.Args[1:])
	for i, node := range nodes {
		nodes[i] = strings.TrimPrefix(node, "!")
	}
	var names []string
	if err := p.addNodes(l, nodes, &names); err != nil {
		return err
	}
	for i, node := range l.Args[1:] {
		if strings.HasPrefix(node, "!") {
			names[i] = "!" + names[i]
		}
	}
	p.conf.prefixes = append(p.conf.prefixes, operatorPrefix{prefix, names, l.At.String()})
	return nil
}

// inputFile returns the Parse function of a line that adds a file to paths.
func (p *parser) inputFile(paths *[]string) func(corefile.Line) error {
	return func(l corefile.Line) error {
		path, err := corefile.InputPath(p.c, l)
		if path != "" {
			*paths = append(*paths, path)
		}
		if path != "" && err != nil { // the running instance may have read it
			p.noFile[path], err = l.At.Errorf("%w", err), nil
		}
		return err
	}
}

func (p *parser) geoRule(l corefile.Line) error {
	fields := append([]string{l.Property}, l.Args...)
	if err := checkGeoRule(fields); err != nil {
		return err
	}
	var nodes []string
	if err := p.addNodes(l, fields[2:], &nodes); err != nil {
		return err
	}
	if slices.ContainsFunc(p.conf.geoRules, func(other []string) bool { return other[0] == fields[0] && other[1] == fields[1] }) {
		return corefile.Twice(fields[0]+" "+fields[1], "put all its nodes on one line, best first")
	}
	p.conf.geoRules = append(p.conf.geoRules, append(fields[:2], nodes...))
	p.geoRules = append(p.geoRules, l.At)
	return nil
}

func (p *parser) export(l corefile.Line) (err error) {
	if len(l.Args) != 1 {
		return corefile.ErrUsage
	}
	p.conf.export, err = corefile.OutputPath(p.c, l.Property, l.Args[0])
	return err
}

func (p *parser) defaults(l corefile.Line) error {
	if len(l.Args) == 0 {
		return corefile.ErrUsage
	}
	return p.addNodes(l, l.Args, &p.conf.defaults)
}

func (p *parser) lease(l corefile.Line) error {
	if len(l.Args) != 2 {
		return corefile.ErrUsage
	}
	var bounds [2]time.Duration
	for i, arg := range l.Args {
		var err error
		if bounds[i], err = (corefile.Durations{Min: time.Second, Max: registry.MaxLease, Example: "30m"}).Parse(l.Property, arg); err != nil {
			return err
		}
	}
	if bounds[0] > bounds[1] {
		return fmt.Errorf("invalid lease '%s %s': the lower bound comes first", l.Args[0], l.Args[1])
	}
	p.conf.leaseMin, p.conf.leaseMax = bounds[0], bounds[1]
	return nil
}

func (p *parser) ttl(l corefile.Line) error {
	if len(l.Args) != 1 {
		return corefile.ErrUsage
	}
	d, err := corefile.Durations{Min: minTTL, Max: maxTTL, Example: "300s"}.Parse(l.Property, l.Args[0])
	p.conf.ttl = uint32(d / time.Second) // #nosec G115 -- bounded
	return err
}

func (p *parser) admin(l corefile.Line) error {
	if len(l.Args) != 1 {
		return corefile.ErrUsage
	}
	p.conf.admin = corefile.Path(p.c, l.Args[0])
	return nil
}

func (p *parser) explain(l corefile.Line) error {
	prefixes, err := corefile.Prefixes(l.Args)
	p.conf.explain = append(p.conf.explain, prefixes...)
	return err
}

func (p *parser) updateFrom(l corefile.Line) error {
	prefixes, err := corefile.Prefixes(l.Args)
	p.conf.updateFrom = append(p.conf.updateFrom, prefixes...)
	return err
}

// ds reads the DS records of a cut.
func (p *parser) ds(l corefile.Line) error {
	if len(l.Args) != 2 && len(l.Args) < 5 {
		return corefile.ErrUsage
	}
	cut, err := p.cutName(l.Args[0])
	if err != nil {
		return err
	}
	text, path := cut+" 0 IN DS "+strings.Join(l.Args[1:], " "), ""
	if len(l.Args) == 2 {
		path = corefile.Path(p.c, l.Args[1])
		b, err := inputfile.ReadText(path)
		if err != nil {
			return fmt.Errorf("ds: %w", err)
		}
		text = string(b)
	}
	records, err := parseDS(cut, text, path)
	if err != nil {
		return fmt.Errorf("ds %s: %w", l.Args[0], err)
	}
	for _, ds := range records {
		if !slices.Contains(p.conf.ds[cut], ds) {
			p.conf.ds[cut] = append(p.conf.ds[cut], ds)
		}
	}
	return nil
}

// parseDS reads the DS records of a cut from a text in the form of zone files.
func parseDS(cut, text, path string) ([]registration.DS, error) {
	var records []registration.DS
	zp := dns.NewZoneParser(strings.NewReader(text), ".", path)
	zp.SetDefaultTTL(0)
	for rr, ok := zp.Next(); ok; rr, ok = zp.Next() {
		rr, ok := rr.(*dns.DS)
		if !ok {
			return nil, errors.New("expected only DS records, as dnssec-dsfromkey prints them")
		}
		ds := registration.NewDS(rr)
		if ds.Cut != cut {
			return nil, fmt.Errorf("unexpected DS record of %s", ds.Cut)
		}
		if err := ds.Check(); err != nil {
			return nil, err
		}
		records = append(records, ds)
	}
	if err := zp.Err(); err != nil {
		return nil, fmt.Errorf("invalid DS record, expected DS records as dnssec-dsfromkey prints them: %w", err)
	}
	if len(records) == 0 {
		return nil, fmt.Errorf("no DS record in %s, expected DS records as dnssec-dsfromkey prints them", path)
	}
	return records, nil
}

// addNodes appends the names of the nodes of a line to list.
func (p *parser) addNodes(l corefile.Line, nodes []string, list *[]string) error {
	listed := make(map[string]bool, len(*list)+len(nodes))
	for _, node := range *list {
		listed[node] = true
	}
	for _, text := range nodes {
		node, err := corefile.Label("node", text)
		if err != nil {
			return err
		}
		p.uses = append(p.uses, use{node, l.At})
		if listed[node] {
			return corefile.Twice("node '"+node+"'", "name it once")
		}
		listed[node] = true
		*list = append(*list, node)
	}
	return nil
}

// nameBelow returns a name below the zone. It is given in full or, if it has one
// label, relative to the zone.
func (p *parser) nameBelow(s string) (string, error) {
	name, err := corefile.Name(s)
	if err != nil {
		return "", err
	}
	if name == "." || strings.Contains(name, "*") {
		return "", fmt.Errorf("invalid name '%s': expected a host name below the zone, such as svc or svc.%s", s, p.conf.zone)
	}
	if name == p.conf.zone || !dns.IsSubDomain(p.conf.zone, name) {
		if dns.CountLabel(name) > 1 || dns.IsFqdn(s) {
			return "", fmt.Errorf("invalid name '%s': not below the zone %s of the server block", s, p.conf.zone)
		}
		return corefile.Name(name + p.conf.zone)
	}
	return name, nil
}

func (p *parser) cutName(s string) (string, error) {
	name, err := p.nameBelow(s)
	if err != nil {
		return "", err
	}
	if p.conf.isReserved(name) {
		return "", p.reserved(s)
	}
	if why := reserved(name); why != "" {
		return "", fmt.Errorf("invalid cut '%s': %s, take another name", s, why)
	}
	return name, nil
}

func (p *parser) reserved(name string) error {
	return fmt.Errorf("invalid name '%s': %s and all names below it are those of the nodes, take another name", name, p.conf.labelName())
}

func (p *parser) store(l corefile.Line) (err error) {
	p.conf.store, err = registry.ParseLocation(p.c, l.Args)
	return err
}
