// Package surveymsg is the survey on the wire: the work that a node asks DNS-B for,
// a signed TXT question for NODE._survey.ZONE, and its report, a signed UPDATE (RFC
// 2136) that adds TXT records to the same name. docs/survey.md has the
// specification.
package surveymsg

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// Label is the label below the zone of DNS-B under which nodes ask and report. Its
// name has a TXT record that explains probes to whoever sees them.
const Label = "_survey"

const (
	version = "v=1" // first word of each TXT record

	// MaxTargets is how many targets a node gets at a time.
	MaxTargets = 20
	// maxReports is how many results one UPDATE has.
	maxReports = 100
	// maxRTT is the largest latency, in milliseconds, that a report may have.
	maxRTT = 10_000
	// maxWait bounds the times in work.
	maxWait = time.Hour
	// routerWord is the word of work that has Router as its method.
	routerWord = "measure=router"
)

// ZoneName returns the name that explains the survey of a zone.
func ZoneName(zone string) string { return Label + "." + zone }

// NodeName returns the name at which a node asks for work and reports.
func NodeName(node, zone string) string { return node + "." + ZoneName(zone) }

// NodeOf returns the node whose name it is in a zone.
func NodeOf(name, zone string) (node string, ok bool) {
	node, ok = strings.CutSuffix(name, "."+ZoneName(zone))
	return node, ok && registration.IsLabel(node)
}

// Method is how a target is measured. The zero value is none.
type Method uint8

// The methods, in the order in which they are tried.
const (
	ICMP Method = iota + 1 // an echo
	DNS                    // a query over UDP to port 53; any answer counts
	TCP                    // a handshake with port 53; a refusal counts

	// Router measures the last router on the way that answers, in place of a
	// target that does not. It is not tried unless DNS-B asks for it.
	Router
)

// Methods are those that measure the target, in the order in which they are tried.
var Methods = [...]Method{ICMP, DNS, TCP}

var methodNames = [...]string{"", "icmp", "dns", "tcp", "router"}

func (m Method) String() string { return methodNames[m] }

// parseMethod reads one of Methods.
func parseMethod(text string) (Method, bool) {
	i := slices.IndexFunc(Methods[:], func(m Method) bool { return m.String() == text })
	return Method(i + 1), i >= 0 // #nosec G115 -- a few
}

// Target is an address that a node is to measure.
type Target struct {
	Address netip.Addr
	Node    string        // that has the address; "": a resolver has it
	Method  Method        // to begin with; none: in order; Router: no other one
	Every   time.Duration // the shortest time between two packets, in whole seconds
}

// Work is what a node is to do next.
type Work struct {
	Next    time.Duration // when to ask again, in whole seconds
	Targets []Target      // at most MaxTargets
}

// Records returns work as the records of a name.
func (w Work) Records(name string) []dns.RR {
	rrs := make([]dns.RR, 0, 1+len(w.Targets))
	add := func(words ...string) {
		rrs = append(rrs, dnsmsg.NewTXT(dnsmsg.Header(name, dns.TypeTXT, 0), version+" "+strings.Join(words, " ")))
	}
	add("next=" + seconds(w.Next))
	for _, t := range w.Targets {
		words := []string{t.Address.String(), "every=" + seconds(t.Every)}
		switch t.Method {
		case 0:
		case Router: // nodes of earlier versions measure the target once more
			words = append(words, routerWord)
		default:
			words = append(words, "method="+t.Method.String())
		}
		if t.Node != "" {
			words = append(words, "node="+t.Node)
		}
		add(words...)
	}
	return rrs
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }

// ParseWork reads the records of an answer. Words that it does not know are for
// later versions: it ignores them.
func ParseWork(rrs []dns.RR) (Work, error) {
	var w Work
	for _, rr := range rrs {
		txt, ok := rr.(*dns.TXT)
		if !ok {
			continue
		}
		words := strings.Fields(dnsmsg.Text(txt))
		if len(words) < 2 {
			return Work{}, fmt.Errorf("record with %d words, expected the version and a target", len(words))
		}
		if err := dnsmsg.CheckVersion(words[0], version); err != nil {
			return Work{}, err
		}
		if wait, ok := strings.CutPrefix(words[1], "next="); ok {
			var err error
			if w.Next, err = parseSeconds(wait); err != nil {
				return Work{}, err
			}
			continue
		}
		t, err := parseTarget(words[1:])
		if err != nil {
			return Work{}, err
		}
		if len(w.Targets) == MaxTargets {
			return Work{}, fmt.Errorf("more than %d targets", MaxTargets)
		}
		w.Targets = append(w.Targets, t)
	}
	return w, nil
}

func parseTarget(words []string) (Target, error) {
	addr, err := parseAddress(words[0])
	if err != nil {
		return Target{}, err
	}
	t := Target{Address: addr}
	for _, word := range words[1:] {
		if word == routerWord {
			t.Method = Router
			continue
		}
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "every":
			if t.Every, err = parseSeconds(value); err != nil {
				return Target{}, err
			}
		case "method":
			if m, ok := parseMethod(value); ok && t.Method == 0 { // one of a later version: none
				t.Method = m
			}
		case "node":
			if t.Node = value; !registration.IsLabel(value) {
				return Target{}, fmt.Errorf("invalid node '%.80s'", value)
			}
		}
	}
	return t, nil
}

func parseSeconds(text string) (time.Duration, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if d := time.Duration(n) * time.Second; err == nil && d <= maxWait { // #nosec G115 -- 16 bits
		return d, nil
	}
	return 0, fmt.Errorf("invalid time '%.80s': expected 0 to %d seconds", text, maxWait/time.Second)
}

func parseAddress(text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" || !registration.IsNodeAddress(addr) {
		return netip.Addr{}, fmt.Errorf("invalid address '%.80s': expected the IP address of a host, such as 192.0.2.7", text)
	}
	return addr, nil
}

// Routers in many networks have the same addresses of these, besides private ones.
var (
	reused = [...]netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"),     // this network (RFC 791)
		netip.MustParsePrefix("100.64.0.0/10"), // between carriers and their customers (RFC 6598)
		netip.MustParsePrefix("192.0.0.0/24"),  // tunnels of customers (RFC 6333)
		netip.MustParsePrefix("240.0.0.0/4"),   // reserved (RFC 1112), and in use within clouds
	}
	// unique6 are the only addresses of IPv6 that IANA gives to one network each.
	unique6 = netip.MustParsePrefix("2000::/3")
)

// IsRouterAddress reports whether an address tells one router from all others.
func IsRouterAddress(addr netip.Addr) bool {
	if addr.Is6() {
		return unique6.Contains(addr) && addr.Zone() == ""
	}
	return addr.IsGlobalUnicast() && !addr.IsPrivate() && !slices.ContainsFunc(reused[:], func(p netip.Prefix) bool { return p.Contains(addr) })
}
