package latencyprobe

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/remotetext"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe/prober"
)

// maxSavedAge is how old the state of a target may be to be restored.
const maxSavedAge = maxSampleAge

// savedTarget is the state of a measurement in a state file. Times are in
// milliseconds since 1970, latencies in milliseconds.
type savedTarget struct {
	Name   string     `json:"name"`
	Addr   netip.Addr `json:"address"`
	Probe  string     `json:"probe,omitempty"`
	Check  *Check     `json:"check,omitempty"`
	Source netip.Addr `json:"source,omitzero"`
	Method string     `json:"method"` // settings.id

	State    State  `json:"state"`           // 1 up, 2 down
	Alone    *State `json:"alone,omitempty"` // of the question by itself, if State is that of its endpoint
	Since    int64  `json:"since,omitempty"`
	Reason   string `json:"reason,omitempty"`
	WentDown int64  `json:"down,omitempty"` // for the last time
	HoldDown int64  `json:"hold_ms,omitempty"`

	At      int64  `json:"at"`                // of the newest probe
	Samples string `json:"samples,omitempty"` // formatSamples, with ages from At
}

func (s *savedTarget) key() measurementKey {
	t := Target{Name: s.Name, Addr: s.Addr, Probe: s.Probe}
	if s.Check != nil {
		t.Check = *s.Check
	}
	return measurementKey{t, s.Source, s.Method}
}

// outdated reports whether the state is too old, or from the future: then the
// clock was set.
func (s *savedTarget) outdated(now time.Time) bool {
	age := now.Sub(time.UnixMilli(s.At))
	return age > maxSavedAge || age < -savePeriod
}

// saved returns the state of m, nil if m has none yet.
func (m *measurement) saved(now time.Time) *savedTarget {
	m.mu.Lock()
	alone, samples := m.health.state, slices.Clone(m.samples)
	h, shared := m.endpoint.of(m.health)
	m.mu.Unlock()
	if !h.probed && h.state == Unknown {
		return nil
	}
	s := &savedTarget{
		Name:     m.key.target.Name,
		Addr:     m.key.target.Addr,
		Probe:    m.key.target.Probe,
		Source:   m.key.source,
		Method:   m.key.probeID,
		State:    h.state,
		Since:    unixMilli(h.since),
		Reason:   h.reason,
		WentDown: unixMilli(h.wentDown),
		HoldDown: min(max(h.holdDown, 0), maxHoldDown).Milliseconds(),
	}
	if shared {
		s.Alone = &alone
	}
	if m.key.target.Check != (Check{}) {
		check := m.key.target.Check
		s.Check = &check
	}
	newest := samples.newest(now)
	if last := m.lastProbe.Load(); last != nil && last.ended.After(newest) {
		newest = last.ended
	}
	s.At, s.Samples = unixMilli(newest), samples.format(newest)
	return s
}

// restore sets the state of m, which is not measured yet. The estimate is made
// of the samples again; failures in a row do not count any more.
func (m *measurement) restore(s *savedTarget) {
	saved, err := parseSamples(s.Samples)
	if err != nil {
		return // impossible: parseTarget has checked them
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	h := health{
		state:    s.State,
		since:    timeOf(min(s.Since, s.At)), // the clock may have been set meanwhile
		wentDown: timeOf(min(s.WentDown, s.At)),
		holdDown: time.Duration(s.HoldDown) * time.Millisecond,
	}
	if s.State == Down {
		h.reason = s.Reason
	}
	if s.Alone != nil {
		m.endpoint.restore(h)
		h = health{state: *s.Alone, since: h.since}
	}
	m.health = h
	m.endpoint.note(m, h.state == Down)
	at := time.UnixMilli(s.At)
	times := make([]time.Time, len(saved))
	for i, x := range saved {
		at = at.Add(-x.age)
		times[i] = at
	}
	now := time.Now()
	for i, x := range slices.Backward(saved) {
		switch {
		case now.Sub(times[i]) > maxSavedAge:
		case x.lost:
			m.samples.addLoss(times[i])
		default:
			m.samples.add(times[i], x.rtt)
			m.estimator.Add(times[i], x.rtt)
			m.last = prober.Result{RTT: x.rtt}
		}
	}
}

// newest returns when the newest sample was taken, or the zero time.
func (s samples) newest(now time.Time) time.Time {
	if len(s) == 0 {
		return time.Time{}
	}
	return now.Add(-s[len(s)-1].age(now))
}

// maxSavedRTT is the longest latency that a state file may have: no timeout is
// longer.
const maxSavedRTT = time.Hour

// format returns the samples as text, newest first: "AGE:RTT" each, separated
// by spaces. AGE is the time in milliseconds before the following sample in
// time, or before now; a loss has no RTT. Samples that parseSamples would refuse
// are left out.
func (s samples) format(now time.Time) string {
	b := make([]byte, 0, 16*len(s))
	var following time.Duration // age of the following sample
	for _, x := range slices.Backward(s) {
		age := x.age(now)
		if age > maxSavedAge {
			break
		}
		if age < following || !(x.rtt <= float32(maxSavedRTT.Seconds())) { // not in order, too long or NaN
			continue
		}
		if len(b) > 0 {
			b = append(b, ' ')
		}
		b = strconv.AppendInt(b, (age - following).Milliseconds(), 10)
		b = append(b, ':')
		if x.rtt >= 0 {
			b = strconv.AppendFloat(b, float64(x.rtt)*1000, 'f', 4, 64)
		}
		following = age
	}
	return string(b)
}

// savedSample is one sample as samples.format writes it.
type savedSample struct {
	age  time.Duration // before the following one
	rtt  time.Duration
	lost bool
}

func parseSamples(text string) ([]savedSample, error) {
	var all []savedSample
	for field := range strings.FieldsSeq(text) {
		age, rtt, ok := strings.Cut(field, ":")
		n, err := strconv.ParseUint(age, 10, 32)
		if !ok || err != nil || len(all) == maxSamples || time.Duration(n)*time.Millisecond > maxSavedAge {
			return nil, fmt.Errorf("invalid sample %.40q", field)
		}
		x := savedSample{age: time.Duration(n) * time.Millisecond, lost: rtt == ""} // #nosec G115 -- bounded above
		if !x.lost {
			ms, err := strconv.ParseFloat(rtt, 64)
			if err != nil || !(ms >= 0 && ms <= float64(maxSavedRTT.Milliseconds())) {
				return nil, fmt.Errorf("invalid latency %.40q", rtt)
			}
			x.rtt = time.Duration(ms * float64(time.Millisecond))
		}
		all = append(all, x)
	}
	return all, nil
}

func parseTarget(line []byte) (*savedTarget, error) {
	s := new(savedTarget)
	if err := json.Unmarshal(line, s); err != nil {
		return nil, err
	}
	if !s.Addr.IsValid() || s.State > Down || s.Alone != nil && *s.Alone > Down || s.HoldDown < 0 || s.HoldDown > maxHoldDown.Milliseconds() {
		return nil, fmt.Errorf("invalid target %.40q", s.Name)
	}
	if _, err := parseSamples(s.Samples); err != nil {
		return nil, err
	}
	s.Reason = remotetext.Clean(s.Reason)
	return s, nil
}

// unixMilli returns 0 for the zero time, unlike its method.
func unixMilli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// timeOf is the inverse of unixMilli.
func timeOf(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
