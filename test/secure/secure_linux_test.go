package secure

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// question is one question to a validating resolver, and what must come back.
type question struct {
	name     string // below gslb.example.org
	qtype    uint16
	want     string // in a record of the answer; "": there is none
	insecure bool
}

// questions are asked in this order: those that something denies come before
// those for what exists at the same name.
var questions = []question{
	{"", dns.TypeSOA, "hostmaster.gslb.example.org.", false},
	{"", dns.TypeDNSKEY, "257 3 13", false},
	{"", dns.TypeHTTPS, "", false},
	{"", dns.TypeNS, "b1.gslb.example.org.", false},
	{"b1.", dns.TypeAAAA, "", false},
	{"b1.", dns.TypeA, dnsbAddr, false},
	{"nope.", dns.TypeA, "", false},
	{"lb.", dns.TypeA, "", false}, // an empty non-terminal
	{"par1.lb.", dns.TypeAAAA, "", false},
	{"par1.lb.", dns.TypeHTTPS, "", false},
	{"par1.lb.", dns.TypeAPL, "1:198.51.100.0/24", false},
	{"par1.lb.", dns.TypeTXT, "v=1", false},
	{"par1.lb.", dns.TypeLOC, " N ", false},
	{"par1.lb.", dns.TypeA, nodeAddr, false},
	{"nope.lb.", dns.TypeTXT, "", false},

	{"svc.", dns.TypeDS, " 13 2 ", false},
	{"svc.", dns.TypeA, "", false},
	{"svc.", dns.TypeSOA, "hostmaster.svc", false},
	{"www.svc.", dns.TypeAAAA, "", false},
	{"www.svc.", dns.TypeHTTPS, "h2", false},
	{"www.svc.", dns.TypeCAA, "ca.example.org", false},
	{"www.svc.", dns.TypeA, serverAddr, false},
	{"www.svc.", dns.TypeMX, "", false},
	{"mail.svc.", dns.TypeAAAA, "", false},
	{"mail.svc.", dns.TypeMX, "www.svc", false},
	{"alias.svc.", dns.TypeAAAA, "CNAME", false},
	{"alias.svc.", dns.TypeA, serverAddr, false},
	{"dangling.svc.", dns.TypeA, "CNAME", false},
	{"deep.svc.", dns.TypeA, "", false}, // an empty non-terminal
	{"only.deep.svc.", dns.TypeAAAA, "", false},
	{"only.deep.svc.", dns.TypeA, serverAddr, false},
	{"any.wild.svc.", dns.TypeAAAA, "", false},
	{"any.wild.svc.", dns.TypeA, serverAddr, false},
	{"nope.svc.", dns.TypeA, "", false},
	{"nope.svc.", dns.TypeHTTPS, "", false},

	{"www.plain.", dns.TypeA, "203.0.113.9", true},
	{"www.plain.", dns.TypeAAAA, "", true},
	{"plain.", dns.TypeDS, "", false},
}

func (q question) fqdn() string { return q.name + "gslb.example.org." }

// wrong says what is wrong with a reply, "" if it is as it should be.
func (q question) wrong(r *dns.Msg) string {
	if r.Rcode != dns.RcodeSuccess && (r.Rcode != dns.RcodeNameError || q.want != "") {
		return "rcode " + dns.RcodeToString[r.Rcode]
	}
	text := ""
	for _, rr := range r.Answer {
		if rr.Header().Rrtype != dns.TypeRRSIG {
			text += rr.String() + "\n"
		}
	}
	if (q.want == "") != (text == "") || !strings.Contains(text, q.want) {
		return fmt.Sprintf("%q in the answer, not %q", text, q.want)
	}
	if r.AuthenticatedData == q.insecure {
		return fmt.Sprintf("AD %t", r.AuthenticatedData)
	}
	return ""
}

// TestResolvers: what validating resolvers get is secure, and no denial denies
// what exists.
func TestResolvers(t *testing.T) {
	for _, r := range resolvers {
		needs(t, r.program)
	}
	s := start(t)
	for _, r := range resolvers {
		t.Run(r.name, func(t *testing.T) {
			r.start(t, s)
			for round := range 2 { // the second one from the cache
				for _, q := range questions {
					m, err := ask(r.addr, q.fqdn(), q.qtype)
					if err != nil {
						t.Errorf("Round %d: %s %s: %v", round, q.fqdn(), dns.TypeToString[q.qtype], err)
						continue
					}
					if wrong := q.wrong(m); wrong != "" {
						t.Errorf("Round %d: %s %s: got %s\n%v", round, q.fqdn(), dns.TypeToString[q.qtype], wrong, m)
					}
				}
			}
		})
	}
}

// TestDelv: delv follows the chain of trust by itself.
func TestDelv(t *testing.T) {
	needs(t, "delv", "unbound")
	s := start(t)
	unbound := resolvers[0]
	unbound.start(t, s)
	a := s.anchor
	anchors := write(t, "anchors", fmt.Sprintf("trust-anchors { gslb.example.org static-ds %d %d %d \"%s\"; };\n", a.KeyTag, a.Algorithm, a.DigestType, a.Digest))
	for _, q := range questions {
		server := unbound.addr
		if !strings.Contains(q.name, "svc.") && !strings.Contains(q.name, "plain.") {
			server = dnsbAddr // what DNS-B itself answers needs no resolver
		}
		out, err := exec.Command("delv", "@"+server, "-a", anchors, "+root=gslb.example.org", q.fqdn(), dns.TypeToString[q.qtype]).CombinedOutput() // #nosec G204 -- a test
		text := string(out)
		want := "; fully validated"
		switch {
		case q.insecure && q.want == "":
			want = "; negative response, unsigned answer"
		case q.insecure:
			want = "; unsigned answer"
		case q.want == "":
			want = "; negative response, fully validated"
		}
		if err != nil || !strings.Contains(text, want) || !strings.Contains(text, q.want) {
			t.Errorf("Expected %q and %q of %s %s, got: %v\n%s", want, q.want, q.fqdn(), dns.TypeToString[q.qtype], err, text)
		}
	}
}

// TestDangling: behind an alias of a zone a name that does not exist is denied as
// such (RFC 9824, section 3.1), though the plugin that has the zone has not seen
// NXDOMAIN: it has looked the target up through the server, which signs.
func TestDangling(t *testing.T) {
	start(t)
	m, err := ask(nodeAddr, "dangling.svc.gslb.example.org.", dns.TypeA)
	if err != nil {
		t.Fatal(err)
	}
	for _, rr := range m.Ns {
		if nsec, ok := rr.(*dns.NSEC); ok && slices.Equal(nsec.TypeBitMap, []uint16{dns.TypeRRSIG, dns.TypeNSEC, dns.TypeNXNAME}) {
			return
		}
	}
	t.Errorf("Expected NXNAME, got %v", m)
}
