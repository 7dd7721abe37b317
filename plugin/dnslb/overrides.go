package dnslb

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/coredns-dnslb/coredns-dnslb/internal/filewatch"
	"github.com/coredns-dnslb/coredns-dnslb/internal/override"
	"github.com/coredns-dnslb/coredns-dnslb/internal/serveroverride"
)

type (
	serverOverride = serveroverride.Override
	verb           = serveroverride.Verb
)

// OverrideVerbs returns the verbs of the lines of an admin file.
func OverrideVerbs() []string { return serveroverride.Grammar.Words() }

// CheckOverride returns an error if a line cannot be one of the admin file.
// It is an error, too, if it would have no effect where it is added.
func (d *DNSLB) CheckOverride(line string) error {
	o, err := serveroverride.Grammar.Parse(strings.Fields(line))
	if err != nil {
		return err
	}
	all, err := serveroverride.Grammar.ReadFile(d.AdminFile())
	if err != nil {
		return fmt.Errorf("the admin file has an error, so that no new line counts: correct it first: %w", err)
	}
	return serveroverride.CheckAdded(all, o.Action)
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
	parse := func() ([]serverOverride, error) { return serveroverride.Grammar.ReadFile(file) }
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
	first     []*indexedOverride   // scratch space
}

type indexedOverride struct {
	serverOverride
	lastService string // that was compared
	forService  bool   // whether the override is for lastService
	matched     bool   // some member
	effective   bool   // some member is as it says
	overruledBy string // the line of another admin file
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
		if o := &x.overrides[i]; o.Action.MatchesServer(label, text) {
			naming = append(naming, o)
		}
	}
	x.byTarget = append(x.byTarget, naming)
}

// of returns the override for a target as a server of a service. Of each admin file
// the first line that matches counts. Of several files, that of the node counts, and
// without one the strongest verb, so that all nodes of these DNS-Bs do the same.
func (x *overrideIndex) of(service string, target int) (found memberOverride) {
	x.first = x.first[:0]
	var winner *indexedOverride
	for _, o := range x.byTarget[target] {
		if o.lastService != service {
			o.lastService, o.forService = service, o.Action.MatchesService(service)
		}
		if !o.forService {
			continue
		}
		o.matched = true
		if n := len(x.first); n > 0 && x.first[n-1].Action.DNSB == o.Action.DNSB {
			continue
		}
		x.first = append(x.first, o)
		if winner == nil || winner.Action.DNSB != "" && o.Action.Verb > winner.Action.Verb {
			winner = o
		}
	}
	for _, o := range x.first {
		if o.Action.Verb == winner.Action.Verb {
			o.effective = true
		} else {
			o.overruledBy = winner.Text
		}
	}
	if winner == nil {
		return memberOverride{}
	}
	return memberOverride{winner.Action.Verb, winner.Text}
}

// effects returns the overrides that some member is under, and the others.
func (x *overrideIndex) effects() (inForce []serverOverride, idle []idleOverride) {
	for _, o := range x.overrides {
		switch {
		case o.effective:
			inForce = append(inForce, o.serverOverride)
		case o.overruledBy != "":
			idle = append(idle, idleOverride{o.serverOverride, fmt.Sprintf("overruled by '%s'", o.overruledBy)})
		case o.matched:
			idle = append(idle, idleOverride{o.serverOverride, "earlier overrides cover all of its servers"})
		default:
			idle = append(idle, idleOverride{o.serverOverride, "no service has such a server"})
		}
	}
	return inForce, idle
}

// overrideSchedule follows which overrides are active, and logs their effects.
type overrideSchedule struct {
	override.Schedule[serveroverride.Action]

	loggedInForce []serverOverride
	loggedIdle    []idleOverride
}

func newOverrideSchedule(prefix string) overrideSchedule {
	return overrideSchedule{Schedule: override.Schedule[serveroverride.Action]{Log: log, Prefix: prefix}}
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
