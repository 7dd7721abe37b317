package peerview

import (
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

// View is what a node shares of its measurements and rankings. It is immutable.
type View struct {
	Node     string
	Serial   uint32
	Made     time.Time // by the clock of this machine
	Targets  map[Target]Measurement
	Rankings map[Service]Ranking
	Deputies []string // which it is for; nil: unknown
	AllNodes bool     // it is for all nodes of the cut as well
}

// HasDeputy reports whether a node is a deputy of the one that made the view, as far
// as is known.
func (v *View) HasDeputy(node string) bool {
	return v.Deputies == nil && !v.AllNodes || slices.Contains(v.Deputies, node)
}

// Target is one address measured by one probe. Nodes may give a server
// different names, so that its name is not part of this.
type Target struct {
	Addr  netip.Addr
	Probe string
}

// Measurement is what a node knows of a target.
type Measurement struct {
	Server   string // its name at the node, or its address
	Estimate ranking.Estimate
	At       time.Time // of the newest sample in Estimate; zero if not measured
	State    latencyprobe.State
}

// Service names a pool of a node: by one of its services, and the address
// family of its servers.
type Service struct {
	Name string // absolute, lower case
	IPv4 bool
}

// Ranking is how a node ranks the servers of a pool.
type Ranking struct {
	// Order is best first: all servers that the node may choose or, where an
	// answer has one address, the first two. The second is for a deputy from
	// which the first is down.
	Order []netip.Addr
	Tied  []netip.Addr // those of Order within the configured distance of the first
}

// InCommon returns how many of the targets the view has.
func (v *View) InCommon(targets []latencyprobe.Target) int {
	n := 0
	for _, t := range targets {
		if _, ok := v.Targets[Target{t.Addr, t.Probe}]; ok {
			n++
		}
	}
	return n
}

// Label is the label below the cut that the zones of views are under. No
// service can have it.
const Label = "_view"

// zoneOf returns the zone that holds the view of a node.
func zoneOf(node, cut string) string { return node + "." + Label + "." + cut }

// IsViewName reports whether a name is that of the zone of a view, or below it.
func IsViewName(name, cut string) bool {
	above, ok := strings.CutSuffix(name, cut)
	// The label above the cut may contain an escaped dot and end like this.
	return ok && strings.HasSuffix(above, "."+Label+".") && dns.IsSubDomain(Label+"."+cut, name)
}

// The zone of a view: its records and the words in them. README and
// docs/deputies.md describe it, and other versions read it.
const (
	version      = "v=1"            // first word of the TXT record at the apex
	allNodesWord = "client-subnets" // there: the view is for all nodes
	rankingLabel = "_ranked"        // owner of the rankings; no server has such a name
	tiedMark     = "~"              // before the address of a tied server
	recordTTL    = 0                // nobody should cache a view

	// maxRanked is how many servers of one service are listed, so that the record
	// fits into what a message of a transfer has free.
	maxRanked = 300
)

// Limits of what is read.
const (
	// 100,000 servers and as many services in both families are 400,004 records:
	// with the SOA record twice, the NS record and the apex TXT record.
	maxRecords  = 500_000
	maxAge      = 365 * 24 * time.Hour
	maxEstimate = 5 * time.Minute // far above the timeout of any probe
)

// soa returns the SOA record of the view's zone. Its timers tell secondaries
// what deputies do.
func (v *View) soa(zone, nameserver string) dns.RR {
	soa := dnsmsg.NewSOA(zone, nameserver, dnsmsg.Mailbox(zone), v.Serial, recordTTL)
	soa.Refresh, soa.Retry = uint32(fetchInterval/time.Second), uint32(fetchInterval/time.Second)
	soa.Expire, soa.Minttl = uint32(Lifetime/time.Second), recordTTL
	return soa
}

// records returns the records of the view's zone, without the SOA record that
// begins and ends a transfer. Times are written as ages at now, so that the
// clocks of two nodes need not agree.
func (v *View) records(cut, nameserver string, now time.Time) []dns.RR {
	zone := zoneOf(v.Node, cut)
	rrs := make([]dns.RR, 0, 2+len(v.Targets)+len(v.Rankings))
	rrs = append(rrs,
		&dns.NS{Hdr: dnsmsg.Header(zone, dns.TypeNS, recordTTL), Ns: nameserver},
		dnsmsg.NewTXT(dnsmsg.Header(zone, dns.TypeTXT, recordTTL), v.apexText(now)))
	for t, m := range v.Targets {
		owner := dnsmsg.Header(serverLabel(m.Server)+"."+zone, dns.TypeTXT, recordTTL)
		rrs = append(rrs, dnsmsg.NewTXT(owner, m.text(t, now)))
	}
	// Records of one server are adjacent, and two transfers can be compared.
	slices.SortFunc(rrs[2:], func(a, b dns.RR) int {
		x, y := a.(*dns.TXT), b.(*dns.TXT)
		if c := strings.Compare(x.Hdr.Name, y.Hdr.Name); c != 0 {
			return c
		}
		return strings.Compare(x.Txt[0], y.Txt[0])
	})
	owner := dnsmsg.Header(rankingLabel+"."+zone, dns.TypeTXT, recordTTL)
	for _, texts := range v.rankingTexts(cut) {
		rrs = append(rrs, &dns.TXT{Hdr: owner, Txt: texts})
	}
	return rrs
}

// apexText is the TXT record of the view as a whole.
func (v *View) apexText(now time.Time) string {
	text := version + " made=" + v.Made.UTC().Format(time.RFC3339) + " age=" + decimal(now.Sub(v.Made).Seconds(), 1)
	if v.Deputies != nil {
		text += " deputies=" + strings.Join(v.Deputies, ",")
	}
	if v.AllNodes {
		text += " " + allNodesWord
	}
	return text
}

// text is the TXT record of one target.
func (m Measurement) text(t Target, now time.Time) string {
	b := []byte(t.Addr.String())
	if t.Probe != "" {
		b = append(append(b, " probe="...), url.QueryEscape(t.Probe)...) // any word
	}
	if e := m.Estimate; e.Measured() {
		b = append(append(b, " value="...), decimal(e.Value, 3)...)
		b = append(append(b, " noise="...), decimal(e.Noise, 3)...)
		b = strconv.AppendUint(append(b, " round="...), e.Round, 10)
		b = append(append(b, " age="...), decimal(now.Sub(m.At).Seconds(), 1)...)
	}
	return string(append(append(b, " state="...), m.State.String()...))
}

// rankingTexts are the TXT records of the rankings: a service, relative to the
// cut unless it ends with a dot, and its servers. Left out are services with
// too many servers, and those whose name is too long or needs escapes: deputies
// rank them by the estimates.
func (v *View) rankingTexts(cut string) [][]string {
	var out [][]string
	for service, r := range v.Rankings {
		name := service.Name
		if relative, ok := strings.CutSuffix(name, "."+cut); ok {
			name = relative
		}
		if len(r.Order) > maxRanked || len(name) > dnsmsg.MaxString || strings.Contains(name, `\`) {
			continue
		}
		texts := make([]string, 1, 1+len(r.Order))
		texts[0] = name
		for _, addr := range r.Order {
			mark := ""
			if slices.Contains(r.Tied, addr) {
				mark = tiedMark
			}
			texts = append(texts, mark+addr.String())
		}
		out = append(out, texts)
	}
	slices.SortFunc(out, slices.Compare)
	return out
}

// serverLabel makes one label of a server's name, which may be an address.
func serverLabel(server string) string { return strings.ReplaceAll(server, ".", `\.`) }

func decimal(x float64, digits int) string { return strconv.FormatFloat(max(x, 0), 'f', digits, 64) }

// reader makes a view of the records of its zone as they come in. Errors name
// the record.
type reader struct {
	zone     string
	cut      string
	rankings string // their owner name
	now      time.Time
	view     *View
	records  int
	soas     int
	dated    bool // the apex TXT record was read
}

// newReader reads the view of a node that is received now.
func newReader(node, cut string, now time.Time) *reader {
	zone := zoneOf(node, cut)
	return &reader{
		zone: zone, cut: cut, rankings: rankingLabel + "." + zone, now: now,
		view: &View{Node: node, Made: now, Targets: make(map[Target]Measurement), Rankings: make(map[Service]Ranking)},
	}
}

// add reads one record. It ignores records of other types, unknown words, and names
// at or below a label that begins with an underscore, as later programs may have
// them.
func (r *reader) add(rr dns.RR) error {
	if r.records++; r.records > maxRecords {
		return fmt.Errorf("zone with more than %d records", maxRecords)
	}
	name := dns.CanonicalName(rr.Header().Name)
	if !dns.IsSubDomain(r.zone, name) {
		return fmt.Errorf("record of %s, which is not in the zone %s", name, r.zone)
	}
	switch rr := rr.(type) {
	case *dns.SOA:
		if name != r.zone {
			return fmt.Errorf("SOA record at %s, expected it at %s", name, r.zone)
		}
		r.soas++
		r.view.Serial = rr.Serial
	case *dns.TXT:
		words := func() []string { return strings.Fields(strings.Join(rr.Txt, "")) }
		var err error
		switch name {
		case r.zone:
			err = r.readApex(words())
		case r.rankings:
			err = r.readRanking(rr.Txt)
		default:
			labels := dns.SplitDomainName(strings.TrimSuffix(name, r.zone))
			if !strings.HasPrefix(labels[len(labels)-1], "_") {
				err = r.readTarget(labels[0], words())
			}
		}
		if err != nil {
			return fmt.Errorf("TXT record of %s: %w", name, err)
		}
	}
	return nil
}

func (r *reader) readApex(words []string) error {
	if len(words) == 0 {
		words = []string{""}
	}
	if err := dnsmsg.CheckVersion(words[0], version); err != nil {
		return err
	}
	for _, word := range words[1:] {
		switch key, value, _ := strings.Cut(word, "="); key {
		case "age":
			made, err := r.time(value)
			if err != nil {
				return err
			}
			r.view.Made = made
			r.dated = true
		case allNodesWord:
			r.view.AllNodes = true
		case "deputies":
			r.view.Deputies = strings.Split(value, ",")
			if i := slices.IndexFunc(r.view.Deputies, func(node string) bool { return !registration.IsLabel(node) }); i >= 0 {
				return fmt.Errorf("invalid deputy '%s'", r.view.Deputies[i])
			}
		}
	}
	return nil
}

// time returns when something was whose age in seconds is the value.
func (r *reader) time(value string) (time.Time, error) {
	age, err := number(value, maxAge.Seconds())
	return r.now.Add(-time.Duration(age * float64(time.Second))), err
}

func (r *reader) readTarget(label string, words []string) error {
	if len(words) == 0 {
		return errors.New("the record is empty")
	}
	var t Target
	m := Measurement{Server: strings.ReplaceAll(label, `\.`, ".")}
	var err error
	if t.Addr, err = address(words[0]); err != nil {
		return err
	}
	e := &m.Estimate
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "probe":
			t.Probe, err = url.QueryUnescape(value)
		case "value":
			e.Value, err = number(value, milliseconds(maxEstimate))
		case "noise":
			e.Noise, err = number(value, milliseconds(maxEstimate))
		case "round":
			e.Round, err = strconv.ParseUint(value, 10, 64)
		case "age":
			m.At, err = r.time(value)
		case "state":
			m.State, err = state(value)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	if e.Measured() && m.At.IsZero() {
		return errors.New("estimate without an age")
	}
	e.RTT = e.Value
	if _, twice := r.view.Targets[t]; twice {
		return fmt.Errorf("%s is listed twice", t.Addr)
	}
	r.view.Targets[t] = m
	return nil
}

// readRanking reads one of what rankingTexts makes.
func (r *reader) readRanking(texts []string) error {
	if n := len(texts) - 1; n < 1 || n > maxRanked {
		return fmt.Errorf("service with %d servers, expected 1 to %d", max(n, 0), maxRanked)
	}
	name := texts[0]
	if !strings.HasSuffix(name, ".") {
		name += "." + r.cut
	}
	var ranking Ranking
	for _, text := range texts[1:] {
		bare, tied := strings.CutPrefix(text, tiedMark)
		addr, err := address(bare)
		if err != nil {
			return err
		}
		if slices.Contains(ranking.Order, addr) {
			return fmt.Errorf("%s is listed twice", addr)
		}
		if len(ranking.Order) > 0 && addr.Is4() != ranking.Order[0].Is4() {
			return fmt.Errorf("%s is of another address family than the first server", addr)
		}
		ranking.Order = append(ranking.Order, addr)
		if tied {
			ranking.Tied = append(ranking.Tied, addr)
		}
	}
	service := Service{name, ranking.Order[0].Is4()}
	if _, twice := r.view.Rankings[service]; twice {
		return fmt.Errorf("service %s is listed twice", name)
	}
	r.view.Rankings[service] = ranking
	return nil
}

// end returns the view of a zone that was read as a whole.
func (r *reader) end() (*View, error) {
	switch {
	case r.soas != 2:
		return nil, fmt.Errorf("transfer with %d SOA records, expected one at its begin and one at its end", r.soas)
	case !r.dated:
		return nil, fmt.Errorf("no TXT record with the age of the view at %s", r.zone)
	}
	return r.view, nil
}

func address(text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" {
		return addr, fmt.Errorf("invalid address '%s'", text)
	}
	return addr.Unmap(), nil
}

// number reads a decimal from 0 to most.
func number(value string, most float64) (float64, error) {
	x, err := strconv.ParseFloat(value, 64)
	if err != nil || math.IsNaN(x) || x < 0 || x > most {
		return 0, fmt.Errorf("invalid number '%s': expected 0 to %v", value, most)
	}
	return x, nil
}

func state(name string) (latencyprobe.State, error) {
	for _, s := range []latencyprobe.State{latencyprobe.Unknown, latencyprobe.Up, latencyprobe.Down} {
		if s.String() == name {
			return s, nil
		}
	}
	return 0, fmt.Errorf("unknown state '%s', expected one of: unknown, up, down", name)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
