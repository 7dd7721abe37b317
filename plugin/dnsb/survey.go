package dnsb

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/coredns/coredns/plugin/tsig"
	"github.com/coredns/coredns/request"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/surveymsg"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/sitesurvey"
)

func (p *parser) survey(l corefile.Line) error {
	o, err := surveymsg.ParseOptions(l, sitesurvey.DefaultBudget)
	p.conf.survey = &o
	return err
}

// checkSurvey checks 'survey' against the accept rules: neither does anything without
// the other.
func (p *parser) checkSurvey() error {
	none := p.surveyor == (corefile.Position{})
	switch at, given := p.lines.Given("survey"); {
	case given && none:
		return at.Errorf("'survey' needs a node that measures: add 'survey' at the end of an 'accept' line")
	case p.lines.Lacks("survey") && !none:
		return p.surveyor.Errorf("'survey' in an 'accept' line needs the survey: add a line 'survey', or remove the word")
	}
	return nil
}

// maySurvey reports whether the holder of a key may take part in the survey as a
// node.
func (c *config) maySurvey(key, node string) bool {
	return slices.ContainsFunc(c.rules[node], func(a *acceptRule) bool { return a.key == key && a.survey })
}

// surveyText is the TXT record that explains probes: nodes ask for it when they
// measure a resolver by DNS.
func (c *config) surveyText() string {
	user, domain, _ := strings.Cut(strings.TrimSuffix(c.mailbox, "."), ".")
	return fmt.Sprintf("The name servers of %s measure the latency to resolvers that ask them, with some packets a day: ICMP echoes, queries for this name, TCP connections to port 53, and for resolvers that answer none of these, queries that end at the last router before them. To be left out, write to %s@%s.",
		c.zone, user, domain)
}

// followSurvey does what is due in the survey, and makes a snapshot when what is
// known has changed, until ctx ends.
func (d *DNSB) followSurvey(ctx context.Context) {
	ticker := time.NewTicker(sitesurvey.Tick)
	defer ticker.Stop()
	var last *snapshot
	for saved := time.Now(); ; {
		if s := d.snapshot.Load(); s != last {
			d.zone.survey.SetBeside(s.besideServers())
			last = s
		}
		d.zone.survey.Tick(time.Now())
		if time.Since(saved) >= sitesurvey.SaveEvery {
			d.saveSurvey()
			saved = time.Now()
		}
		if d.snapshot.Load().sites != d.zone.survey.Table() {
			d.refresh()
		}
		select {
		case <-ctx.Done():
			d.saveSurvey()
			return
		case <-ticker.C:
		}
	}
}

// saveSurvey writes what the survey knows to the store.
func (d *DNSB) saveSurvey() {
	err := d.zone.survey.Save(d.zone.registry.WriteSurvey)
	switch failed := d.zone.surveyUnsaved.Swap(err != nil); {
	case err != nil && !failed:
		log.Errorf("Failed to store measurements of the survey, retrying: %v", err)
	case err == nil && failed:
		log.Info("Recovered: measurements of the survey are stored")
	}
}

// maxBeside is how many sets of nodes beside servers count in the survey: each is
// looked through whenever a site was measured.
const maxBeside = 64

// besideServers returns the sets of nodes that stand beside servers, as nodes that are
// not dead have registered them, each of them once.
func (s *snapshot) besideServers() [][]string {
	var sets [][]string
	for _, n := range s.nodes {
		if n == nil || n.state == nodeDead {
			continue
		}
		for _, set := range n.Beside {
			if !slices.ContainsFunc(sets, func(other []string) bool { return slices.Equal(set, other) }) && len(sets) < maxBeside {
				sets = append(sets, set)
			}
		}
	}
	slices.SortFunc(sets, slices.Compare[[]string])
	return sets
}

// serveWork answers the question of a node for what it is to measure. The plugin
// *tsig*, earlier in the chain, has verified the signature and signs the reply.
func (d *DNSB) serveWork(ctx context.Context, w dns.ResponseWriter, r *dns.Msg, node string) (int, error) {
	state := request.Request{W: w, Req: r}
	m := new(dns.Msg).SetReply(r)
	refuse := func(rcode int, text string) (int, error) {
		m.Rcode = rcode
		dnsmsg.SetError(m, r, dns.ExtendedErrorCodeOther, text)
		return dns.RcodeSuccess, w.WriteMsg(m)
	}
	key, signed := tsig.ValidatedKeyName(ctx)
	switch {
	case r.Opcode != dns.OpcodeQuery:
		return dns.RcodeNotImplemented, nil
	case !signed:
		return refuse(dns.RcodeRefused, "not signed with a known TSIG key")
	case !d.conf.maySurvey(key, node):
		return refuse(dns.RcodeRefused, fmt.Sprintf("the key %s may not take part in the survey as node %s", key, node))
	case state.QType() != dns.TypeTXT:
		return refuse(dns.RcodeRefused, "work for the survey is in TXT records")
	case state.Proto() == "udp":
		m.Truncated = true
		return dns.RcodeSuccess, w.WriteMsg(m)
	case !d.zone.shares.allow(key, surveyOf(node)):
		return refuse(dns.RcodeServerFailure, errBusy.Text)
	}
	work := d.zone.survey.Work(node, d.snapshot.Load().addressesOf(node), time.Now())
	m.Authoritative, m.Answer = true, work.Records(state.QName())
	return dns.RcodeSuccess, w.WriteMsg(m)
}

// surveyOf is what counts the messages of a node for the survey: they do not take
// from the share of its registrations.
func surveyOf(node string) string { return "survey " + node }

// addressesOf returns the addresses of a node, none if it is not registered.
func (s *snapshot) addressesOf(node string) []netip.Addr {
	if n := s.named(registration.NodeName(node, s.conf.zone)); n != nil {
		return n.Addresses
	}
	return nil
}

// surveyNodes returns the numbers of the nodes of a table, noNode for one that the
// configuration does not have any more.
func (b *builder) surveyNodes(table *sitesurvey.Table) []nodeID {
	ids := make([]nodeID, len(table.Names))
	for i, name := range table.Names {
		ids[i] = noNode
		if b.conf.knows(name) {
			ids[i] = b.number(name)
		}
	}
	return ids
}

// surveyed yields the nodes that measured the site of the resolver.
func (q *search) surveyed(yield func(candidate) bool) bool {
	if q.snapshot.sites == nil {
		return true
	}
	site := q.snapshot.sites.Lookup(q.from)
	if site == nil {
		return true
	}
	q.begin(sitePrefix(q.from))
	for _, m := range site.Measured {
		if id := q.snapshot.surveyNodes[m.Node]; id != noNode && !yield(q.candidate(id, layerSurvey)) {
			return false
		}
	}
	return true
}

// countForSurvey tells the survey that a resolver was referred by it, or by something
// that comes after it.
func (s *snapshot) countForSurvey(l layer, from netip.Addr) {
	switch {
	case s.sites == nil || l < layerSurvey || l == layerLast:
	case l == layerSurvey:
		if site := s.sites.Lookup(from); site != nil {
			s.survey.Used(site, from)
		}
	default:
		s.survey.Saw(from)
	}
}
