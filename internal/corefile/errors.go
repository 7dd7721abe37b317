package corefile

import (
	"errors"
	"strings"
)

// MaxErrors is how many errors of a block or a file are told: they may all have
// one cause, such as a file of another kind.
const MaxErrors = 10

// Errors are the errors of several lines of a block or a file, in their order.
type Errors []error

// Error implements the error interface.
func (e Errors) Error() string {
	texts := make([]string, len(e))
	for i, err := range e {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

// Unwrap returns the errors.
func (e Errors) Unwrap() []error { return e }

// Join returns what errors say together, nil if none of them is an error.
func Join(errs ...error) error {
	var all Errors
	for _, err := range errs {
		if several, ok := err.(Errors); ok {
			all = append(all, several...)
		} else if err != nil {
			all = append(all, err)
		}
	}
	return all.asError()
}

// Messages returns what an error says, each error of a line by itself.
func Messages(err error) []string {
	if all, ok := errors.AsType[Errors](err); ok {
		if context, found := strings.CutSuffix(err.Error(), all.Error()); found {
			var messages []string
			for _, e := range all {
				for _, message := range Messages(e) {
					messages = append(messages, context+message)
				}
			}
			return messages
		}
	}
	return []string{err.Error()}
}

// full reports whether there are so many errors that no more are told.
func (e Errors) full() bool { return len(e) == MaxErrors }

// asError returns nil if there are no errors, and a single error as it is.
func (e Errors) asError() error {
	switch len(e) {
	case 0:
		return nil
	case 1:
		return e[0]
	}
	return e
}
