// Command coredns-dnslb is CoreDNS with the plugins of this project.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
)

// nextPlugin is the plugin of CoreDNS before which the plugins of this project
// are inserted: after tsig, cache, dnssec and transfer, and before all plugins
// that hold zones.
const nextPlugin = "dynupdate"

// projectPlugins are in the order of set-up: the other two register their
// targets with latencyprobe.
var projectPlugins = []string{"latencyprobe", "dnsb", "dnslb"}

var validateOnly = flag.Bool("validate", false, "Check the Corefile and all files that it names, print the errors and exit")

func main() {
	directives, err := insertPlugins(dnsserver.Directives)
	if err == nil {
		err = dnsserver.SetDirectives(directives)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	setVersion()

	if args := os.Args[1:]; isCommand(args) {
		os.Exit(runCommand(args, os.Stdout, os.Stderr))
	}
	options := flag.Usage
	flag.Usage = func() {
		options()
		fmt.Fprintln(flag.CommandLine.Output(), "\nCommands that ask and steer running servers: 'coredns-dnslb help'")
	}
	flag.Parse()
	if *validateOnly {
		os.Exit(validate(os.Stdout, os.Stderr))
	}
	coremain.Run()
}

// insertPlugins returns the directives of CoreDNS with those of this project.
func insertPlugins(directives []string) ([]string, error) {
	i := slices.Index(directives, nextPlugin)
	if i < 0 {
		return nil, fmt.Errorf("insert plugins: this CoreDNS has no plugin %q", nextPlugin)
	}
	return slices.Insert(slices.Clone(directives), i, projectPlugins...), nil
}

// setVersion sets the name and version in the output of -version and in the first
// log lines.
func setVersion() {
	caddy.AppName = "coredns-dnslb"
	v := version()
	buildInfo.WithLabelValues(v, coremain.CoreVersion, runtime.Version()).Set(1)
	caddy.AppVersion = v + " CoreDNS-" + coremain.CoreVersion
}
