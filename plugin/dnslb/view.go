package dnslb

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/ranking"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe"
)

// viewVersion begins the TXT record at the apex of a view's zone.
const viewVersion = "v=1"

// viewTTL is the TTL of the records of a view. Nobody should cache them.
const viewTTL = 0

// view is what one node knows of its servers and how it ranks them: what it shares
// with its deputies. It is immutable.
type view struct {
	node    string
	serial  uint32
	made    time.Time
	near    string // digest of the prefixes that the node registers; "": not told
	targets map[viewTarget]seenThere
	ranked  map[viewService]rankedThere

	deputies []string // whom it is for; nil: not told
}

// viewTarget is what a node measures, without the name that it has for it.
type viewTarget struct {
	addr  netip.Addr
	probe string
}

// viewService is a ranking of a node, by one of the services that have it.
type viewService struct {
	name string
	is4  bool // the family of its servers
}

// rankedThere is how a node ranks the servers of a service.
type rankedThere struct {
	order []netip.Addr // best first: all that it may choose, or two if an answer has one
	near  []netip.Addr // of these, those that count as equally fast as the first
}

// rankedThere returns how a pool is ranked for the resolvers of here.
func (p *pool) rankedThere() (r rankedThere) {
	order := p.state.order
	if len(p.state.tied) > 1 {
		r.near = p.addrs(p.state.tied)
	} else if p.options.answers == 1 {
		order = order[:min(2, len(order))] // the second one is for a deputy that finds the first down
	}
	r.order = p.addrs(order)
	return r
}

func (p *pool) addrs(members []int) []netip.Addr {
	addrs := make([]netip.Addr, len(members))
	for i, m := range members {
		addrs[i] = p.members[m].addr
	}
	return addrs
}

// seenThere is what a node knows of a target.
type seenThere struct {
	server   string // the name that the node has for it
	estimate ranking.Estimate
	at       time.Time // of the estimate's newest sample; zero if it was not measured
	state    latencyprobe.State
}

// viewZone is the zone that holds the view of a node.
func viewZone(node, cut string) string { return node + "." + viewLabel + "." + cut }

// isView reports whether a name is that of a view's zone, or below one.
func isView(name, cut string) bool {
	above, ok := strings.CutSuffix(name, cut)
	// Its label may end like this behind a dot that is part of the label.
	return ok && strings.HasSuffix(above, "."+viewLabel+".") && dns.IsSubDomain(viewLabel+"."+cut, name)
}

// digest returns what tells lists of prefixes apart, whatever their order: the
// first 8 bytes of SHA-256, in hexadecimal, of their texts, each with a newline,
// sorted by bytes.
func digest(prefixes []registration.Prefix) string {
	lines := make([]string, len(prefixes))
	for i, p := range prefixes {
		lines[i] = p.String() + "\n"
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "")))
	return hex.EncodeToString(sum[:8])
}

// known returns how many of the targets of the view are among these.
func (v *view) known(targets []latencyprobe.Target) int {
	n := 0
	for _, t := range targets {
		if _, ok := v.targets[viewTarget{t.Addr, t.Probe}]; ok {
			n++
		}
	}
	return n
}

// soa returns the SOA record of the view's zone. The timers say to secondaries
// what deputies do.
func (v *view) soa(zone, server string) dns.RR {
	soa := dnsmsg.NewSOA(zone, server, dnsmsg.Mailbox(zone), v.serial, viewTTL)
	soa.Refresh, soa.Retry = uint32(pullEvery/time.Second), uint32(pullEvery/time.Second)
	soa.Expire = uint32(viewTime / time.Second)
	return soa
}

// rankedLabel is where a view tells how servers are ranked. No server has such a
// name.
const rankedLabel = "_ranked"

// nearMark is before the address of a server that counts as equally fast as the
// first one.
const nearMark = "~"

// records returns the records of the view's zone without the SOA record that
// begins and ends a transfer. Ages are those of now, so that the clocks of two
// nodes need not agree.
func (v *view) records(zone, server string, now time.Time) []dns.RR {
	hdr := func(name string, rrtype uint16) dns.RR_Header { return dnsmsg.Header(name, rrtype, viewTTL) }
	rrs := make([]dns.RR, 0, len(v.targets)+2)
	rrs = append(rrs,
		&dns.NS{Hdr: hdr(zone, dns.TypeNS), Ns: server},
		dnsmsg.NewTXT(hdr(zone, dns.TypeTXT), v.head(now)))
	for target, s := range v.targets {
		rrs = append(rrs, dnsmsg.NewTXT(hdr(ownerLabel(s.server)+"."+zone, dns.TypeTXT), s.text(target, now)))
	}
	// The records of a server stand together, and two transfers can be compared.
	slices.SortFunc(rrs[2:], func(a, b dns.RR) int {
		x, y := a.(*dns.TXT), b.(*dns.TXT)
		if c := strings.Compare(x.Hdr.Name, y.Hdr.Name); c != 0 {
			return c
		}
		return strings.Compare(x.Txt[0], y.Txt[0])
	})
	ranked := rankedLabel + "." + zone
	for _, texts := range v.rankings(cutOf(zone)) {
		rrs = append(rrs, &dns.TXT{Hdr: hdr(ranked, dns.TypeTXT), Txt: texts})
	}
	return rrs
}

// maxRanked is how many servers are told of one service, so that the record fits into
// what a message of a transfer has left.
const maxRanked = 300

// rankings are the TXT records that tell how servers are ranked: a service, relative
// to the cut if it ends without a dot, and its servers. One is left out that has too
// many, or whose name needs more than a character-string can hold as it stands.
func (v *view) rankings(cut string) [][]string {
	var out [][]string
	for service, r := range v.ranked {
		name := service.name
		if above, ok := strings.CutSuffix(name, "."+cut); ok {
			name = above
		}
		if len(r.order) > maxRanked || len(name) > dnsmsg.MaxString || strings.Contains(name, `\`) {
			continue
		}
		text := make([]string, 1, 1+len(r.order))
		text[0] = name
		for _, addr := range r.order {
			mark := ""
			if slices.Contains(r.near, addr) {
				mark = nearMark
			}
			text = append(text, mark+addr.String())
		}
		out = append(out, text)
	}
	slices.SortFunc(out, slices.Compare)
	return out
}

// cutOf returns the cut of the zone of a view.
func cutOf(zone string) string { return dnsmsg.Parent(dnsmsg.Parent(zone)) }

// head is the TXT record of the view itself.
func (v *view) head(now time.Time) string {
	text := viewVersion + " made=" + v.made.UTC().Format(time.RFC3339) + " age=" + decimal(now.Sub(v.made).Seconds(), 1)
	if v.near != "" {
		text += " near=" + v.near
	}
	if v.deputies != nil {
		text += " deputies=" + strings.Join(v.deputies, ",")
	}
	return text
}

// ownerLabel makes one label of a server's name, which may be an address.
func ownerLabel(server string) string { return strings.ReplaceAll(server, ".", `\.`) }

// text is the TXT record of one target.
func (s seenThere) text(t viewTarget, now time.Time) string {
	b := []byte(t.addr.String())
	if t.probe != "" {
		b = append(append(b, " probe="...), url.QueryEscape(t.probe)...) // it may be any word
	}
	if e := s.estimate; e.Measured() {
		b = append(append(b, " value="...), decimal(e.Value, 3)...)
		b = append(append(b, " noise="...), decimal(e.Noise, 3)...)
		b = strconv.AppendUint(append(b, " round="...), e.Round, 10)
		b = append(append(b, " age="...), decimal(now.Sub(s.at).Seconds(), 1)...)
	}
	return string(append(append(b, " state="...), s.state.String()...))
}

func decimal(x float64, digits int) string { return strconv.FormatFloat(max(x, 0), 'f', digits, 64) }

// viewReader makes a view of the records of a zone as they come in. Errors name
// the record.
type viewReader struct {
	zone   string
	cut    string
	ranked string // where it tells how servers are ranked
	view   *view
	now    time.Time
	soas   int
	seen   int // records
	head   bool
}

// maxViewRecords bounds what is read. 100,000 servers and as many services in both
// families are 400,004 records: with the SOA record twice, the NS record and the
// age.
const maxViewRecords = 500_000

// newViewReader reads the view of a node that is received now.
func newViewReader(node, zone string, now time.Time) *viewReader {
	return &viewReader{
		zone: zone, cut: cutOf(zone), ranked: rankedLabel + "." + zone, now: now,
		view: &view{node: node, made: now, targets: make(map[viewTarget]seenThere), ranked: make(map[viewService]rankedThere)},
	}
}

// add reads one record. Records of other types and unknown words are left to
// later versions.
func (r *viewReader) add(rr dns.RR) error {
	if r.seen++; r.seen > maxViewRecords {
		return fmt.Errorf("its view has more than %d records", maxViewRecords)
	}
	name := dns.CanonicalName(rr.Header().Name)
	if !dns.IsSubDomain(r.zone, name) {
		return fmt.Errorf("%s is not in the zone %s", name, r.zone)
	}
	switch rr := rr.(type) {
	case *dns.SOA:
		if name != r.zone {
			return fmt.Errorf("SOA record at %s", name)
		}
		r.soas++
		r.view.serial = rr.Serial
	case *dns.TXT:
		words := func() []string { return strings.Fields(strings.Join(rr.Txt, "")) }
		var err error
		switch name {
		case r.zone:
			return r.readHead(words())
		case r.ranked:
			err = r.readRanking(rr.Txt)
		default:
			err = r.readTarget(dns.SplitDomainName(name)[0], words())
		}
		if err != nil {
			return fmt.Errorf("TXT record of %s: %w", name, err)
		}
	}
	return nil
}

func (r *viewReader) readHead(words []string) error {
	if len(words) == 0 || words[0] != viewVersion {
		return fmt.Errorf("the TXT record of %s does not begin with %s, which alone is known here", r.zone, viewVersion)
	}
	for _, word := range words[1:] {
		switch key, value, _ := strings.Cut(word, "="); key {
		case "age":
			age, err := r.age(value)
			if err != nil {
				return fmt.Errorf("TXT record of %s: %w", r.zone, err)
			}
			r.view.made = age
			r.head = true
		case "near":
			r.view.near = value
		case "deputies":
			r.view.deputies = strings.Split(value, ",")
		}
	}
	return nil
}

// age returns when something was, that is so many seconds old now.
func (r *viewReader) age(value string) (time.Time, error) {
	age, err := number(value, maxAge.Seconds())
	return r.now.Add(-time.Duration(age * float64(time.Second))), err
}

// maxAge bounds what an age may be; a view of that age is of no use to anybody.
const maxAge = 365 * 24 * time.Hour

// number reads a decimal from 0 to most.
func number(value string, most float64) (float64, error) {
	x, err := strconv.ParseFloat(value, 64)
	if err != nil || math.IsNaN(x) || x < 0 || x > most {
		return 0, fmt.Errorf("'%s' is no number from 0 to %v", value, most)
	}
	return x, nil
}

func (r *viewReader) readTarget(label string, words []string) error {
	if len(words) == 0 {
		return errors.New("it is empty")
	}
	var t viewTarget
	s := seenThere{server: strings.ReplaceAll(label, `\.`, ".")}
	var err error
	if t.addr, err = readAddr(words[0]); err != nil {
		return err
	}
	e := &s.estimate
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "probe":
			t.probe, err = url.QueryUnescape(value)
		case "value":
			e.Value, err = number(value, milliseconds(maxEstimate))
		case "noise":
			e.Noise, err = number(value, milliseconds(maxEstimate))
		case "round":
			e.Round, err = strconv.ParseUint(value, 10, 64)
		case "age":
			s.at, err = r.age(value)
		case "state":
			s.state, err = stateNamed(value)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	if e.Measured() && s.at.IsZero() {
		return errors.New("an estimate without an age")
	}
	e.RTT = e.Value
	if _, twice := r.view.targets[t]; twice {
		return fmt.Errorf("%s is there twice", t.addr)
	}
	r.view.targets[t] = s
	return nil
}

// readRanking reads one of what rankings makes.
func (r *viewReader) readRanking(texts []string) error {
	if n := len(texts) - 1; n < 1 || n > maxRanked {
		return fmt.Errorf("a service with %d servers", max(n, 0))
	}
	name := texts[0]
	if !strings.HasSuffix(name, ".") {
		name += "." + r.cut
	}
	var ranked rankedThere
	for _, text := range texts[1:] {
		bare, near := strings.CutPrefix(text, nearMark)
		addr, err := readAddr(bare)
		if err != nil {
			return err
		}
		if slices.Contains(ranked.order, addr) || len(ranked.order) > 0 && addr.Is4() != ranked.order[0].Is4() {
			return fmt.Errorf("%s is there twice, or with others of another family", addr)
		}
		ranked.order = append(ranked.order, addr)
		if near {
			ranked.near = append(ranked.near, addr)
		}
	}
	service := viewService{name, ranked.order[0].Is4()}
	if _, twice := r.view.ranked[service]; twice {
		return fmt.Errorf("%s is there twice", name)
	}
	r.view.ranked[service] = ranked
	return nil
}

func readAddr(text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" {
		return addr, fmt.Errorf("'%s' is no address", text)
	}
	return addr.Unmap(), nil
}

// maxEstimate is far above the timeout of any probe.
const maxEstimate = 5 * time.Minute

func stateNamed(name string) (latencyprobe.State, error) {
	for _, s := range []latencyprobe.State{latencyprobe.Unknown, latencyprobe.Up, latencyprobe.Down} {
		if s.String() == name {
			return s, nil
		}
	}
	return 0, fmt.Errorf("'%s' is neither unknown nor up nor down", name)
}

// end returns the view of a zone that was read as a whole.
func (r *viewReader) end() (*view, error) {
	switch {
	case r.soas != 2:
		return nil, fmt.Errorf("%d SOA records in a transfer, which begins and ends with one", r.soas)
	case !r.head:
		return nil, fmt.Errorf("no TXT record at %s that tells the age of the view", r.zone)
	}
	return r.view, nil
}
