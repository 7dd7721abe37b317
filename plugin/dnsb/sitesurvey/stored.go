package sitesurvey

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/resolver"
	"github.com/coredns-dnslb/coredns-dnslb/internal/surveymsg"
)

// The stored form: a value for each site, by its prefix, and for each node with the
// latencies to others, by its name. Values are words:
//
//	1 ADDRESS OTHER|- METHOD|- HOUR SEARCHED NODE=OUTCOME,METHOD|-|router,SECONDS...
//	1 NODE=OUTCOME,METHOD|-,SECONDS...
//
// and a value for each server, by its name: 1 SECONDS, when it lived, 0 if it ended.
//
// HOUR is when a resolver of the site asked last, SEARCHED when the last search
// ended, and an OUTCOME a latency in milliseconds, 'silent' or 'declined'. Of a search
// for routers, the METHOD is 'router' or, if one answered, router/MILLISECONDS/TTL/NETWORK.
const storedVersion = "1"

const (
	// SaveEvery is how often Survey.Save is to be called: what was reported since is
	// measured again after a crash.
	SaveEvery = 10 * time.Second
	// savedAtOnce is how many values are written at once.
	savedAtOnce = 5000
)

// Save writes what has changed since it was written last. If write fails, it is
// written the next time.
func (s *Survey) Save(write func(map[string][]byte) error) error {
	for {
		values, undo := s.unsaved()
		if len(values) == 0 {
			return nil
		}
		if err := write(values); err != nil {
			undo()
			return err
		}
	}
}

// unsaved returns some of what is not stored, and the function that says that it was
// not written.
func (s *Survey) unsaved() (values map[string][]byte, undo func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	values = make(map[string][]byte)
	var (
		sites   []*site
		nodes   = make([]nodeID, 0, len(s.dirtyOf))
		removed []resolver.Site
	)
	for _, name := range s.formerServers() {
		values[name] = nil
	}
	announcement := s.announcement()
	if announcement != nil {
		values[s.name] = announcement
	}
	for id := range s.dirtyOf {
		delete(s.dirtyOf, id)
		nodes = append(nodes, id)
		values[s.nodes[id].name] = s.encodeNode(id)
	}
	for one := range s.dirty {
		if len(values) >= savedAtOnce {
			break
		}
		delete(s.dirty, one)
		sites = append(sites, one)
		values[one.id.Prefix().String()] = s.encodeSite(one)
	}
	for id := range s.removed {
		if len(values) >= savedAtOnce {
			break
		}
		delete(s.removed, id)
		removed = append(removed, id)
		values[id.Prefix().String()] = nil
	}
	return values, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if announcement != nil {
			s.announced = time.Time{}
		}
		for _, id := range nodes {
			s.dirtyOf[id] = true
		}
		for _, one := range sites {
			if s.sites[one.id] == one {
				s.dirty[one] = true
			}
		}
		for _, id := range removed {
			if s.sites[id] == nil {
				s.removed[id] = true
			}
		}
	}
}

// Moved implements the registry.Survey interface: all is written, but for what Take
// finds to be stored.
func (s *Survey) Moved(shared bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shared, s.announced = shared, time.Time{}
	if !shared {
		clear(s.servers)
	}
	for _, one := range s.list {
		if len(one.answers) > 0 {
			s.dirty[one] = true
		}
	}
	for _, n := range s.nodes {
		if len(n.peers) > 0 {
			s.dirtyOf[n.id] = true
		}
	}
}

// Take implements the registry.Survey interface. Of each node the newest answer
// counts, whoever has stored it.
func (s *Survey) Take(values map[string][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sites := range [...]bool{false, true} { // last: they are judged by nodes
		for key, value := range values {
			_, err := netip.ParsePrefix(key)
			switch {
			case (err == nil) != sites:
				continue
			case strings.HasPrefix(key, serverMark):
				if err := s.takeServer(key, string(value)); err != nil && s.unread.Failed("", "") {
					log.Errorf("Ignored the record of server %q in the store: %v", key, err)
				}
				continue
			}
			if err := s.take(key, string(value)); err != nil && s.unread.Failed("", "") {
				log.Errorf("Ignored measurements of %q in the store: %v", key, err)
			}
		}
	}
}

// Check returns what is wrong with the stored value of a site or of a node.
func Check(key string, value []byte) error {
	text := string(value)
	if strings.Join(strings.Fields(text), " ") != text {
		return errors.New("expected words with one blank between them")
	}
	_, err := parseValue(key, text)
	return err
}

func (s *Survey) take(key, value string) error {
	v, err := parseValue(key, value)
	switch {
	case err != nil:
		return err
	case v.address.IsValid():
		s.takeSite(v)
	default:
		s.takeNode(key, s.answersOf(v))
	}
	return nil
}

// answersOf returns the answers of a value. mu is locked.
func (s *Survey) answersOf(v storedValue) []answer {
	answers := make([]answer, len(v.answers))
	for i, named := range v.answers {
		answers[i] = named.answer
		answers[i].node = s.node(named.name).id
	}
	return answers
}

func (s *Survey) takeNode(name string, answers []answer) {
	from := s.node(name)
	stored := make(map[nodeID]uint32, len(answers))
	for _, a := range answers {
		to := a.node
		stored[to] = a.at
		if from.peers[to].at < a.at {
			a.node = from.id
			s.recordPeer(from.id, to, a)
		}
	}
	delete(s.dirtyOf, from.id)
	for to, a := range from.peers {
		if a.at > stored[to] {
			s.dirtyOf[from.id] = true
		}
	}
}

func (s *Survey) takeSite(v storedValue) {
	id := resolver.SiteOf(v.address)
	one := s.sites[id]
	if one == nil {
		if s.avoids(id.Prefix()) || len(s.sites) >= MaxSites {
			return
		}
		one = &site{id: id, address: v.address, other: v.other, method: v.method, seen: new(atomic.Uint32)}
		s.add(one)
	}
	one.seen.Store(max(one.seen.Load(), v.hour))
	one.told = max(one.told, v.hour)
	ended := v.searched > one.searched
	one.searched = max(one.searched, v.searched)
	s.merge(one, s.answersOf(v), ended)
}

// merge takes stored answers that are newer than those in memory, but none that this
// server has discarded. The answers of a site of another server stay as they are while
// that server searches; when it has ended, the stored ones replace them. mu is locked.
func (s *Survey) merge(one *site, stored []answer, ended bool) {
	delete(s.dirty, one)
	newer, missing := false, false
	for _, a := range one.answers {
		i := slices.IndexFunc(stored, func(other answer) bool { return other.node == a.node })
		missing = missing || i < 0
		newer = newer || i >= 0 && a.at > stored[i].at
	}
	switch mine := len(one.tasks) > 0 || s.isMine(one.id); {
	case !mine && ended:
		one.answers = nil
	case !mine && missing:
		return
	case newer, missing:
		s.dirty[one] = true
	}
	changed := false
	for _, a := range stored {
		i := slices.IndexFunc(one.answers, func(known answer) bool { return known.node == a.node })
		if a.at >= one.discarded && (i < 0 || one.answers[i].at < a.at) {
			checked := max(one.checked, a.at)
			one.record(a)
			one.checked, changed = checked, true
		}
	}
	if !changed {
		return
	}
	if len(one.tasks) == 0 || !one.routed { // the tasks may be for routers, and none answered yet
		one.routed = slices.ContainsFunc(one.answers, answer.routed)
	}
	if len(one.tasks) > 0 {
		return
	}
	s.judge(one)
	s.rank(one)
}

func (s *Survey) encodeSite(one *site) []byte {
	other, method := "-", "-"
	if one.other.IsValid() {
		other = one.other.String()
	}
	if one.method != 0 {
		method = one.method.String()
	}
	one.told = one.seen.Load()
	b := fmt.Appendf(nil, "%s %s %s %s %d %d", storedVersion, one.address, other, method, one.told, one.searched)
	for _, a := range one.answers {
		b = s.appendAnswer(b, a.node, a)
	}
	return b
}

func (s *Survey) encodeNode(from nodeID) []byte {
	b := []byte(storedVersion)
	peers := s.nodes[from].peers
	for _, to := range slices.Sorted(maps.Keys(peers)) {
		b = s.appendAnswer(b, to, peers[to])
	}
	return b
}

// appendAnswer appends the word of an answer. n is the node that measured a site, or
// that was measured.
func (s *Survey) appendAnswer(b []byte, n nodeID, a answer) []byte {
	b = append(append(append(b, ' '), s.nodes[n].name...), '=')
	switch a.outcome {
	case surveymsg.Silent:
		return fmt.Appendf(b, "silent,%s,%d", a.about(), a.at)
	case surveymsg.Declined:
		return fmt.Appendf(b, "declined,%s,%d", a.about(), a.at)
	}
	if a.routed() { // silence, for readers of earlier versions
		return fmt.Appendf(b, "silent,%s/%.3f/%d/%s,%d", a.method, a.rtt, a.ttl, a.router.Prefix().Addr(), a.at)
	}
	return fmt.Appendf(b, "%.3f,%s,%d", a.rtt, a.method, a.at)
}

// about returns what an answer without a latency is about: routers on the way, or "-".
func (a answer) about() string {
	if a.routed() {
		return a.method.String()
	}
	return "-"
}

// storedValue is a value as it is stored.
type storedValue struct {
	// Of a site:
	address, other netip.Addr // other may be invalid; a node has neither
	method         surveymsg.Method
	hour, searched uint32

	answers []namedAnswer
}

// namedAnswer is an answer whose node has its name only.
type namedAnswer struct {
	name string
	answer
}

// parseValue parses what encodeSite and encodeNode return.
func parseValue(key, value string) (v storedValue, err error) {
	words := strings.Fields(value)
	if len(words) == 0 || words[0] != storedVersion {
		return v, fmt.Errorf("unknown version, expected %s", storedVersion)
	}
	words = words[1:]
	if !registration.IsLabel(key) {
		if len(words) < 5 {
			return v, errors.New("words are missing")
		}
		if err := v.parseSite(key, words[:5]); err != nil {
			return v, err
		}
		words = words[5:]
	}
	if v.answers, err = parseAnswers(words); err != nil {
		return v, err
	}
	if !v.address.IsValid() && slices.ContainsFunc(v.answers, func(a namedAnswer) bool { return a.routed() }) {
		return v, errors.New("a router on the way to a node")
	}
	return v, nil
}

func (v *storedValue) parseSite(key string, words []string) (err error) {
	if v.address, err = netip.ParseAddr(words[0]); err != nil {
		return err
	}
	id := resolver.SiteOf(v.address)
	if id.Prefix().String() != key {
		return fmt.Errorf("address %s is not in the site", v.address)
	}
	v.other, _ = netip.ParseAddr(words[1])
	if v.other.IsValid() && resolver.SiteOf(v.other) != id {
		return fmt.Errorf("address %s is not in the site", v.other)
	}
	v.method, _ = parseMethod(words[2])
	if v.hour, err = parseUint32(words[3]); err != nil {
		return err
	}
	v.searched, err = parseUint32(words[4])
	return err
}

func parseUint32(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	return uint32(n), err
}

// parseAnswers parses what appendAnswer appends.
func parseAnswers(words []string) ([]namedAnswer, error) {
	answers := make([]namedAnswer, 0, len(words))
	for _, word := range words {
		name, rest, _ := strings.Cut(word, "=")
		parts := strings.Split(rest, ",")
		if !registration.IsLabel(name) || len(parts) != 3 {
			return nil, fmt.Errorf("invalid word '%.80s'", word)
		}
		at, err := parseUint32(parts[2])
		if err != nil {
			return nil, err
		}
		a := namedAnswer{name, answer{at: at}}
		switch parts[0] {
		case "silent":
			a.outcome = surveymsg.Silent
			if err := a.parseRouter(parts[1]); err != nil {
				return nil, err
			}
		case "declined":
			a.outcome = surveymsg.Declined
			if parts[1] == surveymsg.Router.String() {
				a.method = surveymsg.Router
			}
		default:
			rtt, err := strconv.ParseFloat(parts[0], 32)
			method, ok := parseMethod(parts[1])
			if err != nil || !ok || !(rtt >= 0) || math.IsInf(rtt, 0) {
				return nil, fmt.Errorf("invalid word '%.80s'", word)
			}
			a.rtt, a.method = float32(rtt), method
		}
		if slices.ContainsFunc(answers, func(other namedAnswer) bool { return other.name == name }) {
			return nil, fmt.Errorf("node %s is given twice", name)
		}
		answers = append(answers, a)
	}
	return answers, nil
}

// parseRouter reads what is stored of a search for routers, if it is that.
func (a *answer) parseRouter(text string) error {
	words := strings.Split(text, "/")
	if words[0] != surveymsg.Router.String() {
		return nil
	}
	a.method = surveymsg.Router
	if len(words) == 1 {
		return nil
	}
	if len(words) == 4 {
		rtt, rttErr := strconv.ParseFloat(words[1], 32)
		ttl, ttlErr := strconv.ParseUint(words[2], 10, 8)
		addr, addrErr := netip.ParseAddr(words[3])
		if rttErr == nil && ttlErr == nil && addrErr == nil && rtt >= 0 && !math.IsInf(rtt, 0) && surveymsg.IsRouterAddress(addr) {
			a.outcome, a.rtt, a.ttl, a.router = surveymsg.Measured, float32(rtt), uint8(ttl), resolver.SiteOf(addr)
			return nil
		}
	}
	return fmt.Errorf("invalid router '%.80s'", text)
}

func parseMethod(text string) (surveymsg.Method, bool) {
	for _, m := range surveymsg.Methods {
		if m.String() == text {
			return m, true
		}
	}
	return 0, false
}
