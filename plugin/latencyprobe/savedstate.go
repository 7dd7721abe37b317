package latencyprobe

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// A state file is text: a line that says what it is, a JSON object a line for
// each target, and a line with the SHA-256 of all before it.
const (
	stateHeader  = "latencyprobe state "
	stateVersion = 1
	stateSum     = "sha256 "
)

// savedTarget is a target in a state file. Times are in milliseconds since 1970,
// latencies in milliseconds.
type savedTarget struct {
	Name   string     `json:"name"`
	Addr   netip.Addr `json:"address"`
	Probe  string     `json:"probe,omitempty"`
	Check  *Check     `json:"check,omitempty"`
	Source netip.Addr `json:"source,omitzero"`
	Method string     `json:"method"` // probe.id

	State  State  `json:"state"` // 1 up, 2 down
	Since  int64  `json:"since,omitempty"`
	Reason string `json:"reason,omitempty"`
	Down   int64  `json:"down,omitempty"`    // when it last went down
	Hold   int64  `json:"hold_ms,omitempty"` // how long it was to be held down

	At      int64  `json:"at"`                // of the last probe, and of the last sample
	Samples string `json:"samples,omitempty"` // newest first, "AGE:RTT" each: milliseconds before the one after it, or before At; no RTT: lost
}

func (s *savedTarget) key() targetKey {
	t := Target{Name: s.Name, Addr: s.Addr, Probe: s.Probe}
	if s.Check != nil {
		t.Check = *s.Check
	}
	return targetKey{t, s.Source, s.Method}
}

// old reports whether what is known is too long ago, or not yet, since the clock
// was set.
func (s *savedTarget) old(now time.Time) bool {
	age := now.Sub(time.UnixMilli(s.At))
	return age > savedTime || age < -savePeriod
}

// save returns what is known of a target, or nil if that is nothing.
func (t *target) save(now time.Time) *savedTarget {
	t.mu.Lock()
	h, kept := t.health, t.samples
	t.mu.Unlock()
	if !h.probed && h.state == Unknown {
		return nil
	}
	s := &savedTarget{
		Name:   t.key.target.Name,
		Addr:   t.key.target.Addr,
		Probe:  t.key.target.Probe,
		Source: t.key.source,
		Method: t.key.probe,
		State:  h.state,
		Since:  milliseconds(h.since),
		Reason: h.reason,
		Down:   milliseconds(h.downAt),
		Hold:   h.hold.Milliseconds(),
	}
	if t.key.target.Check != (Check{}) {
		check := t.key.target.Check
		s.Check = &check
	}
	last := kept.last(now)
	if at, _, _ := t.lastProbe(); at.After(last) {
		last = at
	}
	s.At, s.Samples = milliseconds(last), kept.text(last)
	return s
}

// restore makes what was saved known of a target that is not measured yet. The
// samples make the estimate again; how many failures there were in a row does
// not count any more.
func (t *target) restore(s *savedTarget) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	t.health = health{
		state:  s.State,
		since:  fromMilliseconds(min(s.Since, s.At)), // the clock may have been set meanwhile
		downAt: fromMilliseconds(min(s.Down, s.At)),
		hold:   time.Duration(s.Hold) * time.Millisecond,
	}
	if s.State == Down {
		t.health.reason = s.Reason
	}
	all, err := parseSamples(s.Samples)
	if err != nil {
		return // was checked when it was read
	}
	at := time.UnixMilli(s.At)
	times := make([]time.Time, len(all))
	for i, x := range all {
		at = at.Add(-x.age)
		times[i] = at
	}
	for i := len(all) - 1; i >= 0; i-- {
		if now.Sub(times[i]) > savedTime {
			continue
		}
		t.samples.add(times[i], all[i].rtt, all[i].ok)
		if all[i].ok {
			t.estimator.Add(times[i], all[i].rtt)
			t.result = result{rtt: all[i].rtt}
		}
	}
}

// last returns when the newest sample was taken, or the zero time.
func (s *samples) last(now time.Time) time.Time {
	if s.n == 0 {
		return time.Time{}
	}
	return now.Add(-since(s.ring[(s.n-1)%keptSamples], now))
}

// since returns how long before now x was taken.
func since(x sample, now time.Time) time.Duration {
	return time.Duration(stamp(now)-x.at) * time.Millisecond
}

// text returns the samples as they are saved. Ages count from now.
func (s *samples) text(now time.Time) string {
	b := make([]byte, 0, 16*min(s.n, keptSamples))
	after := stamp(now)
	for i := s.n - 1; i >= max(0, s.n-keptSamples); i-- {
		x := s.ring[i%keptSamples]
		if since(x, now) > savedTime {
			break
		}
		if len(b) > 0 {
			b = append(b, ' ')
		}
		b = strconv.AppendUint(b, uint64(after-x.at), 10)
		b = append(b, ':')
		if x.rtt >= 0 {
			b = strconv.AppendFloat(b, float64(x.rtt)*1000, 'f', 4, 64)
		}
		after = x.at
	}
	return string(b)
}

// agedSample is a sample as it is saved.
type agedSample struct {
	age time.Duration // before the one after it
	rtt time.Duration
	ok  bool
}

func parseSamples(text string) ([]agedSample, error) {
	var out []agedSample
	for field := range strings.FieldsSeq(text) {
		age, rtt, ok := strings.Cut(field, ":")
		n, err := strconv.ParseUint(age, 10, 32)
		if !ok || err != nil || len(out) == keptSamples || time.Duration(n)*time.Millisecond > savedTime {
			return nil, fmt.Errorf("unexpected sample '%.40s'", field)
		}
		x := agedSample{age: time.Duration(n) * time.Millisecond, ok: rtt != ""} // #nosec G115 -- bounded above
		if x.ok {
			ms, err := strconv.ParseFloat(rtt, 64)
			if err != nil || !(ms >= 0 && ms <= float64(time.Hour.Milliseconds())) {
				return nil, fmt.Errorf("unexpected latency '%.40s'", rtt)
			}
			x.rtt = time.Duration(ms * float64(time.Millisecond))
		}
		out = append(out, x)
	}
	return out, nil
}

func milliseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMilliseconds(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// writeState writes a state file.
func writeState(w io.Writer, all func(yield func(*savedTarget) bool)) error {
	sum := sha256.New()
	both := io.MultiWriter(w, sum)
	if _, err := fmt.Fprintf(both, "%s%d\n", stateHeader, stateVersion); err != nil {
		return err
	}
	encoder := json.NewEncoder(both) // ends each object with a newline
	encoder.SetEscapeHTML(false)
	for s := range all {
		if err := encoder.Encode(s); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "%s%x\n", stateSum, sum.Sum(nil))
	return err
}

// readState reads a state file. Targets that are too old are left out. An error
// says why none of it is to be used.
func readState(r io.Reader, now time.Time) (map[targetKey]*savedTarget, error) {
	lines := bufio.NewReader(io.LimitReader(r, maxStateFile))
	sum := sha256.New()
	header, err := nextLine(lines, sum)
	if err != nil {
		return nil, err
	}
	version, ok := bytes.CutPrefix(header, []byte(stateHeader))
	if !ok {
		return nil, errors.New("it is no state file")
	}
	switch n, err := strconv.ParseUint(string(version), 10, 31); {
	case err != nil:
		return nil, errors.New("it is no state file")
	case n != stateVersion:
		return nil, fmt.Errorf("it is of version %d, this program writes version %d", n, stateVersion)
	}

	all := make(map[targetKey]*savedTarget)
	for {
		before := hex.EncodeToString(sum.Sum(nil))
		line, err := nextLine(lines, sum)
		if err != nil {
			return nil, err
		}
		if got, ok := bytes.CutPrefix(line, []byte(stateSum)); ok {
			if string(got) != before {
				return nil, errors.New("its checksum is wrong")
			}
			break
		}
		s, err := parseTarget(line)
		if err != nil {
			return nil, err
		}
		if !s.old(now) {
			all[s.key()] = s
		}
	}
	if _, err := lines.ReadByte(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something stands behind its end")
	}
	return all, nil
}

// nextLine returns a line without its end, having added it to sum.
func nextLine(r *bufio.Reader, sum hash.Hash) ([]byte, error) {
	line, err := r.ReadBytes('\n')
	switch {
	case errors.Is(err, io.EOF):
		return nil, errors.New("it ends too early")
	case err != nil:
		return nil, err
	}
	sum.Write(line)
	return line[:len(line)-1], nil
}

func parseTarget(line []byte) (*savedTarget, error) {
	s := new(savedTarget)
	if err := json.Unmarshal(line, s); err != nil {
		return nil, err
	}
	if !s.Addr.IsValid() || s.State > Down || s.Hold < 0 || s.Hold > maxHold.Milliseconds() {
		return nil, fmt.Errorf("unexpected target '%.40s'", s.Name)
	}
	if _, err := parseSamples(s.Samples); err != nil {
		return nil, err
	}
	return s, nil
}
