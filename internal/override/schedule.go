package override

import (
	"slices"
	"time"

	clog "github.com/coredns/coredns/plugin/pkg/log"
)

// Schedule follows which overrides are active, and logs those that end. It has
// one caller at a time. The zero value has no overrides and logs nothing.
type Schedule[A any] struct {
	Log    clog.P
	Prefix string // of log lines

	active, ended []Override[A]
	nextEnd       time.Time
}

// Resume makes overrides active that a previous instance has logged.
func (s *Schedule[A]) Resume(active []Override[A]) { s.active = active }

// Active returns the overrides that had not ended at the last Update, in the
// order of the file.
func (s *Schedule[A]) Active() []Override[A] { return s.active }

// NextEnd returns when the next active override ends, the zero time if none is
// active.
func (s *Schedule[A]) NextEnd() time.Time { return s.nextEnd }

// Update finds out which of all overrides are active now, and reports whether
// that may have changed: because they were loaded, or because one has ended.
func (s *Schedule[A]) Update(all []Override[A], loaded bool) bool {
	now := time.Now()
	if !loaded && (s.nextEnd.IsZero() || now.Before(s.nextEnd)) {
		return false
	}
	wasActive, hadEnded := s.active, s.ended
	s.active, s.ended, s.nextEnd = split(all, now)
	for _, o := range wasActive {
		if !Contains(s.active, o) {
			s.Log.Infof("%sOverride ended: %s", s.Prefix, o.Text)
		}
	}
	for _, o := range s.ended {
		if !Contains(wasActive, o) && !Contains(hadEnded, o) {
			s.Log.Warningf("%sOverride has no effect, it has ended already: %s", s.Prefix, o.Text)
		}
	}
	return true
}

// Contains reports whether a list has an override with the same text, on
// whichever line of the file.
func Contains[A any](list []Override[A], o Override[A]) bool {
	return slices.ContainsFunc(list, func(other Override[A]) bool { return other.Text == o.Text })
}

// split returns the overrides that are active at a time and those that have
// ended, and when the next active one ends; zero if none is active.
func split[A any](all []Override[A], now time.Time) (active, ended []Override[A], nextEnd time.Time) {
	for _, o := range all {
		if !now.Before(o.Until) {
			ended = append(ended, o)
			continue
		}
		active = append(active, o)
		if nextEnd.IsZero() || o.Until.Before(nextEnd) {
			nextEnd = o.Until
		}
	}
	return active, ended, nextEnd
}
