package secure

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// question is a question to a validating resolver, and the expected answer.
type question struct {
	name     string // below gslb.example.org
	qtype    uint16
	want     string // in a record of the answer; "": no record
	insecure bool   // not validated
}

// questions are asked in this order: types that do not exist at a name come
// before those that do.
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

// problem describes a difference of a reply from the expected one, or "".
func (q question) problem(r *dns.Msg) string {
	if r.Rcode != dns.RcodeSuccess && (r.Rcode != dns.RcodeNameError || q.want != "") {
		return "RCODE " + dns.RcodeToString[r.Rcode]
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

// TestResolversValidateAllAnswers asks each question of each resolver. No
// denial may hide a type or a name that exists.
func TestResolversValidateAllAnswers(t *testing.T) {
	for _, r := range resolvers {
		needs(t, r.program)
	}
	s := start(t)
	for _, r := range resolvers {
		t.Run(r.name, func(t *testing.T) {
			r.start(t, s)
			for round := range 2 { // in the second round from the cache
				for _, q := range questions {
					m, err := ask(r.addr, q.fqdn(), q.qtype)
					if err != nil {
						t.Errorf("Round %d: %s %s: Expected a reply, got: %v", round, q.fqdn(), dns.TypeToString[q.qtype], err)
						continue
					}
					if problem := q.problem(m); problem != "" {
						t.Errorf("Round %d: %s %s: Expected the answer in the table, got %s\n%v", round, q.fqdn(), dns.TypeToString[q.qtype], problem, m)
					}
				}
			}
		})
	}
}

// TestDelvValidatesAllAnswers has delv follow the chain of trust.
func TestDelvValidatesAllAnswers(t *testing.T) {
	needs(t, "delv", "unbound")
	s := start(t)
	unbound := resolvers[0]
	unbound.start(t, s)
	a := s.anchor
	anchors := write(t, "anchors", fmt.Sprintf("trust-anchors { gslb.example.org static-ds %d %d %d \"%s\"; };\n", a.KeyTag, a.Algorithm, a.DigestType, a.Digest))
	for _, q := range questions {
		server := unbound.addr
		if !strings.Contains(q.name, "svc.") && !strings.Contains(q.name, "plain.") {
			server = dnsbAddr // names of DNS-B need no resolver
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
			t.Errorf("Expected %q and %q for %s %s, got: %v\n%s", want, q.want, q.fqdn(), dns.TypeToString[q.qtype], err, text)
		}
	}
}

// TestMissingTargetOfAliasIsDenied asks for an alias whose target does not
// exist. The denial must say so (RFC 9824, section 3.1), although the backend
// plugin has not seen NXDOMAIN: it looks the target up through the server,
// which signs.
func TestMissingTargetOfAliasIsDenied(t *testing.T) {
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
	t.Errorf("Expected an NSEC record with NXNAME, got %v", m)
}
