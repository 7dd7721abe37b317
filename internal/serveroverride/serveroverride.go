// Package serveroverride is overrides of servers: which servers of which services
// count as up or down, or get no new clients. The admin file of a node has them, and
// that of a DNS-B for all of its nodes, which fetch them (wire.go).
package serveroverride

import (
	"fmt"
	"net/netip"
	"path"
	"strings"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/override"
)

// Verb is what an override does to servers. Of two, the larger one takes more
// clients away from them.
type Verb uint8

// The verbs.
const (
	None  Verb = iota
	Up         // they count as up, whatever probes say
	Drain      // they are chosen only if no other server is up
	Down       // they count as down
)

// String returns the word for the verb.
func (v Verb) String() string {
	return [...]string{"", "up", "drain", "down"}[v]
}

// Action is what an override does, and to which servers of which services.
type Action struct {
	Verb    Verb
	Server  string // glob of labels or addresses, in lower case
	Service string // glob of absolute names, in lower case; "": all services
	DNSB    string // that has it in its admin file; "": it is in that of the node
}

// Override is one line of an admin file:
//
//	down|up|drain SERVER [for SERVICE] until TIME reason TEXT...
type Override = override.Override[Action]

// Usage is the form of the arguments of all verbs.
const Usage = "SERVER [for SERVICE]"

// Grammar is the lines of the admin file of a node.
var Grammar = override.Grammar[Action]{Down.grammar(), Up.grammar(), Drain.grammar()}

func (v Verb) grammar() override.Verb[Action] {
	return override.Verb[Action]{
		Word: v.String(), Usage: v.String() + " " + Usage,
		Parse: func(arguments []string) (Action, error) { return Parse(v, arguments) },
	}
}

// Parse parses the arguments of a verb.
func Parse(v Verb, arguments []string) (Action, error) {
	a := Action{Verb: v}
	switch {
	case len(arguments) == 1:
	case len(arguments) == 3 && arguments[1] == "for":
		a.Service = strings.ToLower(strings.TrimSuffix(arguments[2], ".")) + "."
	default:
		return a, override.ErrUsage
	}
	for _, pattern := range arguments {
		if err := corefile.CheckASCII("pattern", pattern); err != nil {
			return a, err
		}
	}
	a.Server = strings.ToLower(arguments[0])
	if addr, err := netip.ParseAddr(a.Server); err == nil {
		a.Server = addr.Unmap().String() // as members have it
	}
	for _, glob := range []string{a.Server, a.Service} {
		if _, err := path.Match(glob, ""); err != nil {
			return a, fmt.Errorf("invalid pattern '%s': '*' stands for any text, '?' for one character", glob)
		}
	}
	return a, nil
}

// MatchesServer reports whether a server is meant, by its label or its address.
func (a *Action) MatchesServer(label, address string) bool {
	return matches(a.Server, label) || matches(a.Server, address)
}

// MatchesService reports whether a service is meant.
func (a *Action) MatchesService(name string) bool {
	return a.Service == "" || matches(a.Service, name)
}

// ServiceName returns the name of the only service that can be meant; "" if there may
// be others.
func (a *Action) ServiceName() string {
	if strings.ContainsAny(a.Service, `*?[\`) {
		return ""
	}
	return a.Service
}

// CheckAdded returns an error if an override has no effect as the last one of a list:
// an earlier one, which has not ended, says otherwise for the same servers.
func CheckAdded(list []Override, a Action) error {
	for _, earlier := range list {
		e := earlier.Action
		if e.Verb != a.Verb && e.Server == a.Server && (e.Service == "" || e.Service == a.Service) && time.Now().Before(earlier.Until) {
			return fmt.Errorf("an earlier line counts for the same server, remove it with 'undo' first: %s", earlier.Text)
		}
	}
	return nil
}

func matches(glob, name string) bool {
	ok, _ := path.Match(glob, name) // a bad pattern was found when it was parsed
	return ok
}
