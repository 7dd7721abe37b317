package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coredns/coredns/plugin"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/explain"
	"github.com/coredns-dnslb/coredns-dnslb/internal/inputfile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/operator"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnslb"
)

// watchInterval is the time between two answers of -watch.
const watchInterval = 2 * time.Second

const commandUsage = `usage:
  status  [-json] [-watch] [-all] [@SERVER...] NAME          the state of a cut or zone, at each server
  explain [-json] [-watch] [-all] [@SERVER...] NAME [ADDRESS]  why a resolver gets its answer or referral
  nodes   [-json] [-watch] [@DNSB...] ZONE                   the nodes of a DNS-B
  check-delegation [-json] [-from ADDRESS] ZONE [NAME] [@DNSA...]  the way of a resolver from DNS-A by DNS-B to the nodes
  down|up|drain SERVER [for SERVICE] until TIME reason TEXT  override of a DNS-LB
  down|up|drain server SERVER [for SERVICE] until TIME reason TEXT  the same at all nodes of a DNS-B
  drain|forget NODE                  until TIME reason TEXT  override of a DNS-B
  pin PREFIX NODE...                 until TIME reason TEXT  override of a DNS-B
  init dnsb|node ...                                         the first configuration, 'init' shows how
  store export|import [-dry-run] [FILE]                      what the store of a DNS-B holds, as text
  undo [WORD...]                                             removes overrides that begin with these words, or lists all

@SERVER is @ADDRESS or @ADDRESS:PORT, @127.0.0.1 by default. With -all it is a DNS-B, and its nodes are asked, too.
TIME is +2h, 18:00, 2026-01-31T18:00, or with a zone 2026-01-31T18:00:00Z.
Overrides go into the admin file that the Corefile names (-conf FILE), of the block of -zone ZONE if there are several.
`

// command is one run of a command.
type command struct {
	name           string
	args           []string
	stdout, stderr io.Writer

	conf, zone       string
	json, watch, all bool
	dryRun           bool
}

// isCommand reports whether the arguments of the program are a command.
func isCommand(args []string) bool {
	words := []string{"status", "explain", "nodes", "store", "undo", "init", "check-delegation", "help"}
	return len(args) > 0 && (slices.Contains(words, args[0]) || slices.Contains(dnslb.OverrideVerbs(), args[0]) || slices.Contains(dnsb.OverrideVerbs(), args[0]))
}

// usages are the usages of commands that have one of their own.
var usages = map[string]string{"init": initUsage, "check-delegation": delegationUsage}

// runCommand runs a command and returns the exit status.
func runCommand(args []string, stdout, stderr io.Writer) int {
	if len(args) == 2 && slices.Contains([]string{"-h", "-help", "--help"}, args[1]) {
		fmt.Fprint(stdout, cmp.Or(usages[args[0]], commandUsage))
		return 0
	}
	if args[0] == "init" {
		return runInit(args[1:], stdout, stderr)
	}
	if args[0] == "check-delegation" {
		return runCheckDelegation(args[1:], stdout, stderr)
	}
	c := &command{name: args[0], stdout: stdout, stderr: stderr}
	flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprint(stderr, commandUsage) }
	flags.StringVar(&c.conf, "conf", "Corefile", "")
	flags.StringVar(&c.zone, "zone", "", "")
	flags.BoolVar(&c.json, "json", false, "")
	flags.BoolVar(&c.watch, "watch", false, "")
	flags.BoolVar(&c.all, "all", false, "")
	flags.BoolVar(&c.dryRun, "dry-run", false, "")
	if c.name == "store" {
		if len(args) < 2 || args[1] != "export" && args[1] != "import" {
			fmt.Fprintln(stderr, errUsage)
			return 1
		}
		c.name, args = "store "+args[1], args[1:]
	}
	if flags.Parse(args[1:]) != nil {
		return 2
	}
	c.args = flags.Args()
	var err error
	switch c.name {
	case "help":
		fmt.Fprint(stdout, commandUsage)
	case "status", "explain", "nodes":
		err = c.ask()
	case "store export":
		err = c.exportStore()
	case "store import":
		err = c.importStore()
	case "undo":
		err = c.undo()
	default:
		err = c.override()
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

var errUsage = errors.New("wrong arguments, 'coredns-dnslb help' shows the usage")

// ask asks servers once, or with -watch until the program is stopped.
func (c *command) ask() error {
	var servers []operator.Server
	for len(c.args) > 0 && strings.HasPrefix(c.args[0], "@") {
		s, err := operator.ParseServer(c.args[0][1:])
		if err != nil {
			return err
		}
		servers, c.args = append(servers, s), c.args[1:]
	}
	if len(servers) == 0 {
		servers = []operator.Server{{Address: netip.MustParseAddrPort("127.0.0.1:53")}}
	}
	var address netip.Addr
	if c.name == "explain" && len(c.args) == 2 {
		var err error
		if address, err = netip.ParseAddr(c.args[1]); err != nil {
			return fmt.Errorf("invalid address '%s': expected that of a resolver, such as 192.0.2.1", c.args[1])
		}
		c.args = c.args[:1]
	}
	if len(c.args) != 1 || c.name == "nodes" && c.all {
		return errUsage
	}
	for {
		err := c.askOnce(context.Background(), servers, address)
		if !c.watch {
			return err
		}
		if err != nil {
			fmt.Fprintln(c.stderr, err)
		}
		time.Sleep(watchInterval)
	}
}

// askAtOnce is how many servers are asked at a time.
const askAtOnce = 32

func (c *command) askOnce(ctx context.Context, servers []operator.Server, address netip.Addr) error {
	if c.all {
		var err error
		if servers, err = withNodes(ctx, servers, c.args[0]); err != nil {
			return err
		}
	}
	answers := make([]operator.Answer, len(servers))
	free := make(chan struct{}, askAtOnce)
	var asking sync.WaitGroup
	for i, s := range servers {
		free <- struct{}{}
		asking.Go(func() {
			defer func() { <-free }()
			answers[i] = c.askServer(ctx, s, address)
		})
	}
	asking.Wait()
	if err := c.print(servers, answers); err != nil {
		return err
	}
	if slices.ContainsFunc(answers, func(a operator.Answer) bool { return a.Problem != "" }) {
		return errors.New("not all servers have answered")
	}
	return nil
}

// withNodes returns DNS-Bs and the nodes that they know of the zone of a name. A DNS-B
// that does not answer knows none.
func withNodes(ctx context.Context, dnsbs []operator.Server, name string) ([]operator.Server, error) {
	servers := slices.Clone(dnsbs)
	var failed error
	for _, dnsb := range dnsbs {
		zone, err := operator.ZoneOf(ctx, dnsb, name)
		var nodes []operator.Server
		if err == nil {
			nodes, err = operator.Nodes(ctx, dnsb, zone)
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", dnsb, err))
		}
		for _, node := range nodes {
			if !slices.ContainsFunc(servers, func(s operator.Server) bool { return s.Address == node.Address }) {
				servers = append(servers, node)
			}
		}
	}
	if len(servers) == len(dnsbs) && failed != nil {
		return nil, failed
	}
	return servers, nil
}

// askServer asks one server what the command is about.
func (c *command) askServer(ctx context.Context, s operator.Server, address netip.Addr) operator.Answer {
	name := explain.Label + "." + dns.Fqdn(c.args[0])
	switch c.name {
	case "nodes":
		return operator.Ask(ctx, s, "nodes."+name, address, true)
	case "status":
		zone, err := operator.ZoneOf(ctx, s, c.args[0])
		if err != nil {
			return operator.Answer{Server: s.Address.String(), Node: s.Name, Name: name, Objects: []explain.Object{}, Problem: err.Error()}
		}
		return operator.Ask(ctx, s, "status."+explain.Label+"."+zone, address, true)
	}
	return operator.Ask(ctx, s, name, address, c.json)
}

// answersVersion grows when a field of the output of -json goes away or changes its
// meaning, not when one is added.
const answersVersion = 2

// print prints answers, one server after the other.
func (c *command) print(servers []operator.Server, answers []operator.Answer) error {
	if c.json {
		encoder := json.NewEncoder(c.stdout)
		encoder.SetEscapeHTML(false) // "->" in errors
		if !c.watch {                // else one line each time
			encoder.SetIndent("", "  ")
		}
		return encoder.Encode(struct {
			Version int               `json:"version"`
			Servers []operator.Answer `json:"servers"`
		}{answersVersion, answers})
	}
	if c.watch {
		fmt.Fprintf(c.stdout, "\x1b[H\x1b[2J%s\n", time.Now().Format(time.DateTime))
	}
	if c.name == "status" && len(servers) > 1 {
		if err := printTable(c.stdout, statusTable(answers)); err != nil {
			return err
		}
	}
	for i, a := range answers {
		if len(servers) > 1 {
			fmt.Fprintf(c.stdout, "%s\n", servers[i])
		}
		indent := strings.Repeat("  ", min(len(servers)-1, 1))
		lines := a.Lines
		switch {
		case a.Problem != "":
			lines = append(lines, "failed: "+a.Problem)
		case c.name == "nodes":
			var table strings.Builder
			if err := printTable(&table, nodeTable(a)); err != nil {
				return err
			}
			lines = strings.Split(strings.TrimRight(table.String(), "\n"), "\n")
		case c.name == "status":
			lines = statusLines(a)
		}
		for _, line := range lines {
			fmt.Fprintf(c.stdout, "%s%s\n", indent, inputfile.Printable(line))
		}
	}
	return nil
}

// adminFile is the admin file of a server block.
type adminFile struct {
	plugin, zone string
	path         string
	verbs        []string
	check        func(line string) error
}

// adminFiles returns the admin files of the Corefile, of the block of -zone alone if
// that is given.
func (c *command) adminFiles() ([]adminFile, error) {
	configs, problems, err := c.setUp()
	if err != nil {
		return nil, err
	}
	if len(problems) > 0 {
		return nil, fmt.Errorf("%s has errors, write the line into the admin file by hand: %s", c.conf, strings.Join(problems, "; "))
	}
	var files []adminFile
	for _, config := range configs {
		if d, ok := config.Handler("dnslb").(*dnslb.DNSLB); ok {
			files = append(files, adminFile{"dnslb", d.Zones[0], d.AdminFile(), dnslb.OverrideVerbs(), d.CheckOverride})
		}
		if d, ok := config.Handler("dnsb").(*dnsb.DNSB); ok {
			files = append(files, adminFile{"dnsb", d.Zone(), d.AdminFile(), dnsb.OverrideVerbs(), d.CheckOverride})
		}
	}
	zone := plugin.Name(c.zone).Normalize()
	files = slices.DeleteFunc(files, func(f adminFile) bool { return f.path == "" || c.zone != "" && f.zone != zone })
	if len(files) == 0 {
		return nil, fmt.Errorf("%s has no admin file: add 'admin FILE' to dnslb or dnsb", c.conf)
	}
	return files, nil
}

// override adds a line to the one admin file that may have it.
func (c *command) override() error {
	files, err := c.adminFiles()
	if err != nil {
		return err
	}
	words, err := operator.ResolveTime(append([]string{c.name}, c.args...), time.Now())
	if err != nil {
		return err
	}
	line := strings.Join(strings.Fields(strings.Join(words, " ")), " ")
	if strings.Contains(line, "#") {
		return fmt.Errorf("'%s' has a '#', which begins a comment in admin files: leave it out", line)
	}
	var fitting []adminFile
	var refusals []string
	for _, f := range files {
		if !slices.Contains(f.verbs, c.name) {
			continue
		}
		if err := f.check(line); err != nil {
			refusals = append(refusals, fmt.Sprintf("%s %s: %v", f.plugin, f.zone, err))
		} else if !slices.ContainsFunc(fitting, func(other adminFile) bool { return other.path == f.path }) {
			fitting = append(fitting, f)
		}
	}
	switch {
	case len(fitting) == 0 && len(refusals) == 0:
		return fmt.Errorf("no admin file of %s has overrides of this kind", c.conf)
	case len(fitting) == 0:
		return errors.New(strings.Join(refusals, "\n"))
	case len(fitting) > 1:
		zones := make([]string, len(fitting))
		for i, f := range fitting {
			zones[i] = "-zone " + f.zone
		}
		return fmt.Errorf("several admin files may have '%s': choose one with %s", line, strings.Join(zones, " or "))
	}
	f := fitting[0]
	if err := operator.AddLine(f.path, line); err != nil {
		return err
	}
	when, prefix := "6 seconds", words[:2]
	if f.plugin == "dnsb" && len(words) > 2 && words[1] == "server" && words[2] != "until" {
		when, prefix = fmt.Sprintf("some 7 seconds at all nodes of %s ('nodes' tells which have fetched it)", f.zone), words[:3]
	}
	fmt.Fprintf(c.stdout, "%s: %s\nin force within %s; to take it back: coredns-dnslb undo %s\n", f.path, line, when, strings.Join(prefix, " "))
	return nil
}

// undo removes the overrides that begin with the words of the command, or lists all
// if there are none.
func (c *command) undo() error {
	files, err := c.adminFiles()
	if err != nil {
		return err
	}
	paths := make(map[string]bool)
	for _, f := range files {
		paths[f.path] = true
	}
	found := 0
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		if len(c.args) == 0 {
			lines, err := operator.Lines(path)
			if err != nil {
				return err
			}
			for _, line := range lines {
				fmt.Fprintf(c.stdout, "%s: %s\n", path, line)
			}
			continue
		}
		removed, err := operator.RemoveLines(path, func(fields []string) bool {
			return len(fields) >= len(c.args) && slices.Equal(fields[:len(c.args)], c.args)
		})
		if err != nil {
			return err
		}
		for _, line := range removed {
			fmt.Fprintf(c.stdout, "%s: removed: %s\n", path, line)
		}
		found += len(removed)
	}
	if found == 0 && len(c.args) > 0 {
		return fmt.Errorf("no override begins with '%s': 'coredns-dnslb undo' lists all", strings.Join(c.args, " "))
	}
	return nil
}
