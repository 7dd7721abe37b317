package dnsb

import (
	"errors"
	"fmt"
	"time"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/surveymsg"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/sitesurvey"
)

// The outcomes of a report besides those of an UPDATE.
const (
	reported registry.Outcome = "ok"
	repeated registry.Outcome = "repeated" // all of its results were known
	notAsked registry.Outcome = "unasked"  // for one of its addresses, at least
)

// reportOutcomes are the values of the label "result" of reports.
var reportOutcomes = []registry.Outcome{reported, repeated, notAsked, unsigned, malformed, prerequisiteFailed, replayed, tooOften, outOfScope}

// report takes the report of a node, in whole or not at all. As for registrations,
// what the key may do comes first. A report that was sent before is harmless: a
// result counts only while DNS-B waits for it.
func (d *DNSB) report(m *dns.Msg, sig signature) (registry.Outcome, error) {
	outcome, node, err := d.takeReport(m, sig)
	if err != nil && d.zone.refusals.Failed("survey "+sig.key+" "+node+" "+string(outcome), "") {
		log.Warningf("Refused a report of node %q signed with key %q: %s", node, sig.key, clip(err.Error()))
	}
	return outcome, err
}

// takeReport returns "" for a node that may not report with the key: anybody can
// think of names.
func (d *DNSB) takeReport(m *dns.Msg, sig signature) (outcome registry.Outcome, node string, err error) {
	if err := d.conf.checkZoneSection(m); err != nil {
		return malformed, "", err
	}
	if sig.key == "" {
		return unsigned, "", errors.New("not signed with a known TSIG key")
	}
	if err := sig.checkTime(); err != nil {
		return replayed, "", err
	}
	if !d.conf.keys[sig.key] {
		return outOfScope, "", fmt.Errorf("the key %s may not report", sig.key)
	}
	leave, ok := d.zone.shares.enter(sig.key, updateCost(m))
	if !ok {
		return tooOften, "", errBusy
	}
	defer leave()
	node, err = surveymsg.ReporterOf(m, d.conf.zone)
	if err != nil {
		return outOfScope, "", err
	}
	if !d.conf.maySurvey(sig.key, node) {
		return outOfScope, "", fmt.Errorf("the key %s may not take part in the survey as node %s", sig.key, node)
	}
	if !d.zone.shares.allow(sig.key, surveyOf(node)) {
		return tooOften, node, errBusy
	}
	results, err := surveymsg.ParseReport(m)
	if err != nil {
		return malformed, node, err
	}
	if err := d.snapshot.Load().prerequisites(m.Answer); err != nil {
		return prerequisiteFailed, node, err
	}
	fresh, err := d.zone.survey.Report(node, results, time.Now())
	switch {
	case errors.As(err, new(*sitesurvey.NotAskedError)):
		return notAsked, node, &registration.Error{Rcode: dns.RcodeRefused, Text: err.Error()}
	case fresh == 0:
		return repeated, node, nil
	}
	return reported, node, nil
}
