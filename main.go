// The binary: CoreDNS with the plugins that a DNS operator expects, and the
// three that steer clients to the fastest server.
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
)

// anchor is the plugin in CoreDNS's own order that ours stand before: behind
// tsig, cache, dnssec and transfer, and in front of everything that has zones.
const anchor = "dynupdate"

// ours are the plugins of this project, in the order of their set-up:
// latencyprobe measures what the other two name.
var ours = []string{"latencyprobe", "dnsb", "dnslb"}

var validateOnly = flag.Bool("validate", false, "Check the configuration and all files that it names, print the errors and exit")

func main() {
	order, err := pluginOrder(dnsserver.Directives)
	if err == nil {
		err = dnsserver.SetDirectives(order)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	nameBuild()

	flag.Parse()
	if *validateOnly {
		os.Exit(validate(os.Stdout, os.Stderr))
	}
	coremain.Run()
}

// pluginOrder puts our plugins into CoreDNS's order.
func pluginOrder(stock []string) ([]string, error) {
	i := slices.Index(stock, anchor)
	if i < 0 {
		return nil, fmt.Errorf("this CoreDNS has no plugin %q before which to insert ours", anchor)
	}
	return slices.Insert(slices.Clone(stock), i, ours...), nil
}

// nameBuild makes -version and the start-up line tell what this is.
func nameBuild() {
	caddy.AppName = "coredns-dnslb"
	caddy.AppVersion = version() + " CoreDNS-" + coremain.CoreVersion
}
