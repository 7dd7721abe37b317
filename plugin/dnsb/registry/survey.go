package registry

// SurveyStore is implemented by stores that keep what the survey knows, too: values
// by key, of which the store knows nothing. Unlike registrations they are written
// later, and can be measured again.
type SurveyStore interface {
	// FollowSurvey tells the survey what is stored, and what other servers change,
	// until the store is closed.
	FollowSurvey(Survey)

	// WriteSurvey writes values; nil removes one. It may be called at the same time as
	// Write.
	WriteSurvey(values map[string][]byte) error
}

// Survey is the survey of a zone as its store sees it. It may be called with the
// locks of the store held.
type Survey interface {
	// Moved says that the store may lack anything, and whether other servers write to
	// it.
	Moved(shared bool)

	// Take takes values that are in the store.
	Take(values map[string][]byte)
}

// SetSurvey makes the stores keep what a survey knows. It is to be called before
// SetStore.
func (r *Registry) SetSurvey(s Survey) { r.survey = s }

// followSurvey makes a store tell the survey what it holds.
func (r *Registry) followSurvey(s Store) {
	if kept, ok := s.(SurveyStore); ok && r.survey != nil {
		_, shared := r.location.(Shared)
		r.survey.Moved(shared)
		kept.FollowSurvey(r.survey)
	}
}

// WriteSurvey writes values of the survey to the store. Without a store that keeps
// them it does nothing.
func (r *Registry) WriteSurvey(values map[string][]byte) error {
	r.writing.Lock()
	s, ok := r.store.(SurveyStore)
	r.writing.Unlock() // registrations do not wait for this
	if !ok {
		return nil
	}
	return s.WriteSurvey(values)
}
