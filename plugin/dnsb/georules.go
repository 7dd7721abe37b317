package dnsb

import (
	"fmt"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/geodb"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/prefixmap"
)

// geoRule is a line that names the nodes of an AS, a country or a continent.
type geoRule struct {
	name  string // AS64500, FR, EU
	nodes []nodeID
	entry *entry // for prefixes of the AS in map files
}

// geoRecord is what the databases say of a prefix.
type geoRecord = geodb.Record[geoRule]

// rulesOf returns the rules for a geo record in the order of their layers, from
// layerASN on.
func rulesOf(r *geoRecord) [3]*geoRule { return [...]*geoRule{r.ASN, r.Country, r.Continent} }

// geoRules are those of 'asn', 'country' and 'continent' lines.
type geoRules struct{ geodb.Rules[geoRule] }

func newGeoRules() *geoRules {
	return &geoRules{geodb.Rules[geoRule]{
		ASNs: make(map[string]*geoRule), Countries: make(map[string]*geoRule), Continents: make(map[string]*geoRule),
	}}
}

// isGeoRule reports whether a line that begins with word is a geo rule.
func isGeoRule(word string) bool { return word == "asn" || word == "country" || word == "continent" }

// geoRuleForm returns how a geo rule is written.
func geoRuleForm(word string) string {
	return word + " " + map[string]string{"asn": "AS64500", "country": "FR", "continent": "EU"}[word] + " NODE..."
}

// checkGeoRule checks the form of a geo rule.
func checkGeoRule(fields []string) error {
	valid := geodb.IsCode
	if fields[0] == "asn" {
		valid = geodb.IsASN
	}
	if len(fields) < 3 || !valid(fields[1]) {
		return fmt.Errorf("expected '%s'", geoRuleForm(fields[0]))
	}
	return nil
}

// of returns the rules that begin with word.
func (r *geoRules) of(word string) map[string]*geoRule {
	switch word {
	case "asn":
		return r.ASNs
	case "country":
		return r.Countries
	}
	return r.Continents
}

// add adds a rule that checkGeoRule has checked.
func (r *geoRules) add(m *prefixmap.Map, fields []string) error {
	rules, name := r.of(fields[0]), fields[1]
	if rules[name] != nil {
		return corefile.Twice(fields[0]+" "+name, "put all its nodes on one line, best first")
	}
	rule := &geoRule{name: name, entry: m.OperatorEntry(fields[2:])}
	for _, c := range rule.entry.Claims {
		rule.nodes = append(rule.nodes, c.Node)
	}
	rules[name] = rule
	return nil
}

// grammar returns the grammar of map files: geo rules are their rules, and an AS
// number stands for the nodes of its rule.
func (r *geoRules) grammar(m *prefixmap.Map, conf *config) prefixmap.Grammar {
	return prefixmap.Grammar{
		NodeName: conf.nodeName,
		AddRule: func(words []string) error {
			if err := checkGeoRule(words); err != nil {
				return err
			}
			if words[0] != "asn" && len(conf.databases) == 0 {
				return fmt.Errorf("'%s' needs a database: add 'mmdb FILE' to the Corefile", words[0])
			}
			nodes, err := prefixmap.NodeNames(words[2:], conf.nodeName)
			if err != nil {
				return err
			}
			return r.add(m, append(words[:2], nodes...))
		},
		Group: func(name string) (*entry, bool) {
			if !geodb.IsASN(name) {
				return nil, false
			}
			if rule := r.ASNs[name]; rule != nil {
				return rule.entry, true
			}
			return nil, true
		},
	}
}
