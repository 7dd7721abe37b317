package surveymsg

import (
	"net/netip"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
)

// Options are what a 'survey' line says, of DNS-B and of a node.
type Options struct {
	Budget int            // packets a second: of all nodes at DNS-B, else of one
	Avoid  []netip.Prefix // whose addresses are not measured
}

// Usage and Example are those of a 'survey' line.
const (
	Usage   = "survey [budget PACKETS] [avoid PREFIX...]"
	Example = "survey budget 20 avoid 192.0.2.0/24"
)

// maxBudget is the most packets a second that a line may allow.
const maxBudget = 10_000

// ParseOptions reads the arguments of a 'survey' line. budget is the default.
func ParseOptions(l corefile.Line, budget int) (Options, error) {
	o, args := Options{Budget: budget}, l.Args
	if len(args) > 1 && args[0] == "budget" {
		var err error
		if o.Budget, err = corefile.Number("budget", args[1], maxBudget); err != nil {
			return o, err
		}
		args = args[2:]
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
