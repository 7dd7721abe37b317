package main

import (
	"bytes"
	"fmt"
	"io"
	"runtime/debug"
	"strings"

	"github.com/coredns/caddy"
	"github.com/coredns/caddy/caddyfile"
	"github.com/coredns/coredns/core/dnsserver"
	clog "github.com/coredns/coredns/plugin/pkg/log"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/setupcheck"
)

const serverType = "dns"

// validate loads the configuration that the server would run, sets up each
// plugin of each server block, rehearses its start, and prints all errors: a
// server stops at the first one. It returns the exit status.
func validate(stdout, stderr io.Writer) int {
	config, err := caddy.LoadCaddyfile(serverType)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	problems, notes := check(config)
	for _, problem := range problems {
		fmt.Fprintln(stderr, problem)
	}
	if n := len(problems); n > 0 {
		fmt.Fprintf(stderr, "%s: problems found: %d\n", config.Path(), n)
		return 1
	}
	for _, note := range notes {
		fmt.Fprintln(stdout, note())
	}
	fmt.Fprintf(stdout, "%s: ok\n", config.Path())
	return 0
}

// check returns the errors and warnings that the plugins report at the set-up of
// a Corefile (to *file*, a missing zone file is only a warning), and what they note
// for the operator.
func check(config caddy.Input) (problems []string, notes []func() string) {
	var warnings bytes.Buffer
	clog.SetOutput(&warnings)
	defer clog.SetOutput(io.Discard)

	root, _, problems := setUp(config)
	for line := range strings.Lines(warnings.String()) {
		if strings.Contains(line, "[WARNING]") || strings.Contains(line, "[ERROR]") {
			problems = append(problems, strings.TrimSpace(line))
		}
	}
	if len(problems) == 0 {
		problems = failed(setupcheck.Rehearsals(root))
	}
	return problems, setupcheck.Notes(root)
}

// setUp sets up the plugins of a Corefile, and starts nothing. It returns the
// controller that they share, the configuration of each server block, and all errors.
func setUp(config caddy.Input) (root *caddy.Controller, configs []*dnsserver.Config, problems []string) {
	// No other exported function makes a controller with a context.
	root = caddy.NewTestController(serverType, "")
	blocks, err := caddyfile.Parse(config.Path(), bytes.NewReader(config.Body()), dnsserver.Directives)
	if err == nil {
		blocks, err = root.Context().InspectServerBlocks(config.Path(), blocks)
	}
	if err != nil {
		return root, nil, []string{err.Error()}
	}

	for _, directive := range dnsserver.Directives {
		for i, block := range blocks {
			tokens, used := block.Tokens[directive]
			if !used {
				continue
			}
			c := *root
			c.Dispenser = caddyfile.NewDispenserTokens(config.Path(), tokens)
			c.Key, c.ServerBlockKeys, c.ServerBlockIndex = block.Keys[0], block.Keys, i
			setup, err := caddy.DirectiveAction(serverType, directive)
			if err == nil {
				err = recovered(func() error { return setup(&c) })
			}
			if err != nil {
				problems = append(problems, corefile.Messages(err)...)
			}
		}
	}
	if len(problems) == 0 {
		// Errors between server blocks, such as a zone that is served twice, and
		// between the plugins of a block.
		if _, err := root.Context().MakeServers(); err != nil {
			problems = append(problems, err.Error())
		} else {
			problems = append(problems, failed(setupcheck.All(root))...)
		}
	}
	for i, block := range blocks {
		c := *root
		c.Key, c.ServerBlockKeys, c.ServerBlockIndex = block.Keys[0], block.Keys, i
		configs = append(configs, dnsserver.GetConfig(&c))
	}
	return root, configs, problems
}

// failed returns the errors of functions.
func failed(functions []func() error) (problems []string) {
	for _, f := range functions {
		if err := recovered(f); err != nil {
			problems = append(problems, corefile.Messages(err)...)
		}
	}
	return problems
}

// recovered returns what f does, or an error if f panics.
func recovered(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the server would panic, report this as an error of the program: %v\n%s", r, debug.Stack())
		}
	}()
	return f()
}
