package surveymsg

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// Outcome is how a measurement ended.
type Outcome uint8

const (
	Measured Outcome = iota // the target answered
	Silent                  // nothing came back, by any method
	Declined                // the node cannot or may not measure the target
)

// Result is what a node reports of a target.
type Result struct {
	Address netip.Addr
	Outcome Outcome
	RTT     float64 // milliseconds, above 0, if Measured
	Method  Method  // if Measured

	// Of the method Router:
	Router netip.Addr // that answered, see IsRouterAddress
	TTL    uint8      // of the packets to which it answered, from 1
}

// text returns a result as words.
func (r Result) text() string {
	switch r.Outcome {
	case Silent:
		return r.Address.String() + " silent"
	case Declined:
		return r.Address.String() + " declined"
	}
	rtt := strconv.FormatFloat(max(r.RTT, 0.001), 'f', 3, 64)
	if r.Method == Router { // "silent", and for readers of earlier versions nothing else
		return fmt.Sprintf("%s silent router=%s router-rtt=%s ttl=%d", r.Address, r.Router, rtt, r.TTL)
	}
	return r.Address.String() + " rtt=" + rtt + " method=" + r.Method.String()
}

// Report returns the unsigned UPDATE with the results of a node, at most 100.
func Report(node, zone string, results []Result) *dns.Msg {
	m := new(dns.Msg).SetUpdate(zone)
	m.SetEdns0(1232, false) // so that an error can come back with its text
	rrs := make([]dns.RR, len(results))
	for i, r := range results {
		rrs[i] = dnsmsg.NewTXT(dnsmsg.Header(NodeName(node, zone), dns.TypeTXT, 0), version+" "+r.text())
	}
	m.Insert(rrs)
	return m
}

// IsReport reports whether an UPDATE is a report, right or wrong, and no
// registration: its first record is below the name of the survey.
func IsReport(m *dns.Msg, zone string) bool {
	return len(m.Ns) > 0 && dns.IsSubDomain(ZoneName(zone), dns.CanonicalName(m.Ns[0].Header().Name))
}

func formErr(format string, args ...any) error {
	return &registration.Error{Rcode: dns.RcodeFormatError, Text: fmt.Sprintf(format, args...)}
}

func refused(format string, args ...any) error {
	return &registration.Error{Rcode: dns.RcodeRefused, Text: fmt.Sprintf(format, args...)}
}

// ReporterOf returns the node whose report an UPDATE of a zone is. The error is a
// *registration.Error.
func ReporterOf(m *dns.Msg, zone string) (node string, err error) {
	for _, rr := range m.Ns {
		name := dns.CanonicalName(rr.Header().Name)
		if !dns.IsSubDomain(zone, name) {
			return "", &registration.Error{Rcode: dns.RcodeNotZone, Text: fmt.Sprintf("%s is not in the zone %s", name, zone)}
		}
		one, ok := NodeOf(name, zone)
		switch {
		case !ok:
			return "", refused("%s is not the name of a report, expected %s", name, NodeName("NODE", zone))
		case node != "" && one != node:
			return "", refused("reports of the nodes %s and %s in one message: send one message for each node", node, one)
		}
		node = one
	}
	return node, nil
}

// ParseReport returns the results in a report. The error is a *registration.Error.
func ParseReport(m *dns.Msg) ([]Result, error) {
	if len(m.Ns) > maxReports {
		return nil, refused("a report has at most %d results, this one has %d", maxReports, len(m.Ns))
	}
	results := make([]Result, 0, len(m.Ns))
	seen := make(map[netip.Addr]bool, len(m.Ns))
	for _, rr := range m.Ns {
		h := rr.Header()
		txt, ok := rr.(*dns.TXT)
		if !ok || h.Class != dns.ClassINET {
			return nil, refused("%s record of class %s: a report adds TXT records only", dns.Type(h.Rrtype), dns.Class(h.Class))
		}
		r, err := parseResult(strings.Fields(dnsmsg.Text(txt)))
		if err != nil {
			return nil, err
		}
		if seen[r.Address] {
			return nil, formErr("%s is reported twice in one message", r.Address)
		}
		seen[r.Address] = true
		results = append(results, r)
	}
	return results, nil
}

// parseResult reads words of a result. Words KEY=VALUE that it does not know are
// for later versions: it ignores them.
func parseResult(words []string) (Result, error) {
	if len(words) < 3 || !strings.HasPrefix(words[0], "v=") {
		return Result{}, formErr("invalid TXT record: expected '%s ADDRESS rtt=MILLISECONDS method=METHOD', '%s ADDRESS silent' or '%s ADDRESS declined'", version, version, version)
	}
	if words[0] != version {
		text := fmt.Sprintf("unknown version '%.20s' of a report, expected %s: update DNS-B or the node", words[0], version)
		return Result{}, &registration.Error{Rcode: dns.RcodeNotImplemented, Text: text}
	}
	addr, err := parseAddress(words[1])
	if err != nil {
		return Result{}, formErr("%s", err)
	}
	r, outcomes, ofRouter := Result{Address: addr}, 0, 0
	for _, word := range words[2:] {
		key, value, _ := strings.Cut(word, "=")
		switch {
		case word == "silent":
			r.Outcome = Silent
			outcomes++
		case word == "declined":
			r.Outcome = Declined
			outcomes++
		case key == "rtt":
			if r.RTT, err = parseRTT(value); err != nil {
				return Result{}, err
			}
			outcomes++
		case key == "method":
			var ok bool
			if r.Method, ok = parseMethod(value); !ok {
				return Result{}, formErr("unknown method '%.20s', expected icmp, dns or tcp", value)
			}
		case key == "router":
			if r.Router, err = parseAddress(value); err != nil || !IsRouterAddress(r.Router) {
				return Result{}, formErr("invalid router '%.80s': expected a public IP address, such as 192.0.2.1", value)
			}
			ofRouter++
		case key == "router-rtt":
			if r.RTT, err = parseRTT(value); err != nil {
				return Result{}, err
			}
			ofRouter++
		case key == "ttl":
			ttl, err := strconv.ParseUint(value, 10, 8)
			if err != nil || ttl == 0 {
				return Result{}, formErr("invalid TTL '%.20s': expected 1 to 255", value)
			}
			r.TTL = uint8(ttl)
			ofRouter++
		}
	}
	switch {
	case outcomes != 1:
		return Result{}, formErr("result of %s with %d of 'rtt', 'silent' and 'declined', expected one of them", addr, outcomes)
	case (r.Method == 0) == (r.Outcome == Measured):
		return Result{}, formErr("result of %s: expected 'method' with 'rtt', and only then", addr)
	case ofRouter > 0 && (ofRouter != 3 || r.Outcome != Silent || !r.Router.IsValid() || r.RTT == 0 || r.TTL == 0):
		return Result{}, formErr("result of %s: expected 'router', 'router-rtt' and 'ttl' once each, with 'silent'", addr)
	case ofRouter > 0:
		r.Outcome, r.Method = Measured, Router
	}
	return r, nil
}

// parseRTT reads a decimal number of milliseconds.
func parseRTT(text string) (float64, error) {
	if len(text) <= 16 && strings.Trim(text, "0123456789.") == "" {
		if v, err := strconv.ParseFloat(text, 64); err == nil && v > 0 && v <= maxRTT {
			return v, nil
		}
	}
	return 0, formErr("invalid latency '%.20s': expected milliseconds above 0 and up to %d, such as 12.345", text, maxRTT)
}
