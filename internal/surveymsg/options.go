package surveymsg

import (
	"math"
	"net/netip"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
)

// Options are what a 'survey' line says, of DNS-B and of a node.
type Options struct {
	Budget  int            // packets a second: of all nodes at DNS-B, else of one
	DNSPort uint16         // of a node: it measures by queries to this port alone; 0: by all methods
	Avoid   []netip.Prefix // whose addresses are not measured
}

// Usage and Example are those of a 'survey' line, NodeUsage that of one of a node.
const (
	Usage     = "survey [budget PACKETS] [avoid PREFIX...]"
	NodeUsage = "survey [budget PACKETS] [dns PORT] [avoid PREFIX...]"
	Example   = "survey budget 20 avoid 192.0.2.0/24"
)

// maxBudget is the most packets a second that a line may allow.
const maxBudget = 10_000

// ParseOptions reads the arguments of a 'survey' line of DNS-B. budget is the default.
func ParseOptions(l corefile.Line, budget int) (Options, error) {
	return parseOptions(l.Args, budget, false)
}

// ParseNodeOptions is ParseOptions for a line of a node.
func ParseNodeOptions(l corefile.Line, budget int) (Options, error) {
	return parseOptions(l.Args, budget, true)
}

func parseOptions(args []string, budget int, ofNode bool) (Options, error) {
	o := Options{Budget: budget}
	if len(args) > 1 && args[0] == "budget" {
		var err error
		if o.Budget, err = corefile.Number("budget", args[1], maxBudget); err != nil {
			return o, err
		}
		args = args[2:]
	}
	if ofNode && len(args) > 1 && args[0] == "dns" {
		port, err := corefile.Number("dns", args[1], math.MaxUint16)
		if err != nil {
			return o, err
		}
		o.DNSPort, args = uint16(port), args[2:] // #nosec G115 -- at most MaxUint16
	}
	if len(args) == 0 {
		return o, nil
	}
	if args[0] != "avoid" {
		return o, corefile.ErrUsage
	}
	var err error
	o.Avoid, err = corefile.Prefixes(args[1:])
	return o, err
}
