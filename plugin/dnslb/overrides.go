package dnslb

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/filewatch"
	"github.com/coredns-dnslb/coredns-dnslb/internal/override"
)

// verb is what an override does to servers.
type verb uint8

const (
	verbNone  verb = iota
	verbUp         // they count as up, whatever probes say
	verbDown       // they count as down
	verbDrain      // they are chosen only if no other server is up
)

// String returns the word for the verb.
func (v verb) String() string {
	return [...]string{"", "up", "down", "drain"}[v]
}

// serverAction is what an override does, and to which servers of which services.
type serverAction struct {
	verb    verb
	server  string // glob of labels or addresses, in lower case
	service string // glob of absolute names, in lower case; "": all services
}

// serverOverride is one line of the admin file:
//
//	down|up|drain SERVER [for SERVICE] until TIME reason TEXT...
type serverOverride = override.Override[serverAction]

var overrideGrammar = override.Grammar[serverAction]{
	verbDown.grammar(), verbUp.grammar(), verbDrain.grammar(),
}

func (v verb) grammar() override.Verb[serverAction] {
	return override.Verb[serverAction]{
		Word: v.String(), Usage: v.String() + " SERVER [for SERVICE]",
		Parse: func(arguments []string) (serverAction, error) { return parseAction(v, arguments) },
	}
}

func parseAction(v verb, arguments []string) (serverAction, error) {
	a := serverAction{verb: v}
	switch {
	case len(arguments) == 1:
	case len(arguments) == 3 && arguments[1] == "for":
		a.service = strings.ToLower(strings.TrimSuffix(arguments[2], ".")) + "."
	default:
		return a, override.ErrUsage
	}
	for _, pattern := range arguments {
		if err := corefile.CheckASCII("pattern", pattern); err != nil {
			return a, err
		}
	}
	a.server = strings.ToLower(arguments[0])
	if addr, err := netip.ParseAddr(a.server); err == nil {
		a.server = addr.Unmap().String() // as members have it
	}
	for _, glob := range []string{a.server, a.service} {
		if _, err := path.Match(glob, ""); err != nil {
			return a, fmt.Errorf("invalid pattern '%s': '*' stands for any text, '?' for one character", glob)
		}
	}
	return a, nil
}

// OverrideVerbs returns the verbs of the lines of an admin file.
func OverrideVerbs() []string { return overrideGrammar.Words() }

// CheckOverride returns an error if a line cannot be one of the admin file.
func (d *DNSLB) CheckOverride(line string) error {
	_, err := overrideGrammar.Parse(strings.Fields(line))
	return err
}

// AdminFile returns the path of the admin file, "" if there is none.
func (d *DNSLB) AdminFile() string {
	if d.admin == nil {
		return ""
	}
	return d.admin.Paths()[0]
}

// adminFile loads the overrides of the admin file.
type adminFile = filewatch.Loader[[]serverOverride]

// newAdminFile returns an admin file that has not been loaded yet.
func newAdminFile(file, zone string) *adminFile {
	parse := func() ([]serverOverride, error) { return overrideGrammar.ReadFile(file) }
	return filewatch.NewLoader("admin file", parse, log, func(err error) { countReload(zone, "admin", err) }, file)
}

// noAdminFile returns one without overrides, for a block without 'admin'.
func noAdminFile() *adminFile {
	return filewatch.NewLoader[[]serverOverride]("admin file", nil, log, nil)
}

// memberOverride is the override that a member is under. It is comparable.
type memberOverride struct {
	verb verb
	text string // the line
}

// overrideIndex finds the overrides that members are under, while a snapshot is
// built. A server is compared with the overrides once, not for each service.
type overrideIndex struct {
	overrides []indexedOverride
	byTarget  [][]*indexedOverride // those that name the server of a target
}

type indexedOverride struct {
	serverOverride
	lastService string // that was compared
	forService  bool   // whether the override is for lastService
	matched     bool   // some member
	effective   bool   // for a member that no earlier override matches
}

// idleOverride is an override that has no effect.
type idleOverride struct {
	serverOverride
	why string
}

func newOverrideIndex(active []serverOverride) overrideIndex {
	x := overrideIndex{overrides: make([]indexedOverride, len(active))}
	for i, o := range active {
		x.overrides[i].serverOverride = o
	}
	return x
}

// addTarget adds the next target, an address of a server.
func (x *overrideIndex) addTarget(label string, addr netip.Addr) {
	var naming []*indexedOverride
	text := addr.String()
	for i := range x.overrides {
		if o := &x.overrides[i]; matches(o.Action.server, label) || matches(o.Action.server, text) {
			naming = append(naming, o)
		}
	}
	x.byTarget = append(x.byTarget, naming)
}

// of returns the override for a target as a server of a service: the first one
// that matches.
func (x *overrideIndex) of(service string, target int) (found memberOverride) {
	for _, o := range x.byTarget[target] {
		if o.lastService != service {
			o.lastService, o.forService = service, o.Action.service == "" || matches(o.Action.service, service)
		}
		if !o.forService {
			continue
		}
		if o.matched = true; found.verb == verbNone {
			o.effective = true
			found = memberOverride{o.Action.verb, o.Text}
		}
	}
	return found
}

// effects returns the overrides that some member is under, and the others.
func (x *overrideIndex) effects() (inForce []serverOverride, idle []idleOverride) {
	for _, o := range x.overrides {
		switch {
		case o.effective:
			inForce = append(inForce, o.serverOverride)
		case o.matched:
			idle = append(idle, idleOverride{o.serverOverride, "earlier overrides cover all of its servers"})
		default:
			idle = append(idle, idleOverride{o.serverOverride, "no service has such a server"})
		}
	}
	return inForce, idle
}

func matches(glob, name string) bool {
	ok, _ := path.Match(glob, name) // a bad pattern was found when it was parsed
	return ok
}

// overrideSchedule follows which overrides are active, and logs their effects.
type overrideSchedule struct {
	override.Schedule[serverAction]

	loggedInForce []serverOverride
	loggedIdle    []idleOverride
}

func newOverrideSchedule(prefix string) overrideSchedule {
	return overrideSchedule{Schedule: override.Schedule[serverAction]{Log: log, Prefix: prefix}}
}

// resume takes over the overrides of the previous instance, which it has logged.
func (s *overrideSchedule) resume(previous *snapshot) {
	s.Resume(previous.overrides)
	s.loggedInForce, s.loggedIdle = previous.inForce, previous.idle
}

// logEffects logs once which overrides are in force, and which have no effect:
// their server is probably misspelled.
func (s *overrideSchedule) logEffects(t *snapshot) {
	for _, o := range t.inForce {
		if !override.Contains(s.loggedInForce, o) {
			log.Infof("%sOverride in force: %s", s.Prefix, o.Text)
		}
	}
	for _, o := range t.idle {
		if !slices.ContainsFunc(s.loggedIdle, func(other idleOverride) bool { return other.Text == o.Text && other.why == o.why }) {
			log.Warningf("%sOverride has no effect, %s: %s", s.Prefix, o.why, o.Text)
		}
	}
	s.loggedInForce, s.loggedIdle = t.inForce, t.idle
}
