package boltstore

import (
	"bytes"
	"errors"

	bolt "go.etcd.io/bbolt"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
)

var _ registry.SurveyStore = (*store)(nil)

// surveyBucket has what the survey knows, by its keys. Earlier versions of the
// program ignore it.
var surveyBucket = []byte("survey")

var errUnwritten = errors.New("the file cannot be written now")

// readSurvey takes what is stored for the survey.
func (s *store) readSurvey(root *bolt.Bucket) error {
	s.values = make(map[string][]byte)
	kept := root.Bucket(surveyBucket)
	if kept == nil {
		return nil
	}
	return kept.ForEach(func(key, value []byte) error {
		s.values[string(key)] = bytes.Clone(value)
		return nil
	})
}

// FollowSurvey implements the registry.SurveyStore interface.
func (s *store) FollowSurvey(survey registry.Survey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.survey = survey
	survey.Take(s.values)
	s.values = nil
}

// WriteSurvey implements the registry.SurveyStore interface. A file that is not as it
// was left is replaced with the next registration, or by check.
func (s *store) WriteSurvey(values map[string][]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return errClosed
	case s.db == nil:
		return errUnwritten
	}
	if err := s.changed(); err != nil {
		return err
	}
	err := guarded(func() error {
		return s.db.Update(func(tx *bolt.Tx) error {
			kept, err := tx.Bucket(s.zone).CreateBucketIfNotExists(surveyBucket)
			for key, value := range values {
				switch {
				case err != nil:
				case value == nil:
					err = kept.Delete([]byte(key))
				default:
					err = kept.Put([]byte(key), value)
				}
			}
			return err
		})
	})
	var panicked *panicError
	if lost := s.lost(); lost != nil || errors.As(err, &panicked) {
		reason := errors.Join(lost, err)
		if err := s.replace(reason); err == nil {
			s.wrote(s.rewrite(nil))
		}
		return reason
	}
	return errors.Join(err, s.note())
}
