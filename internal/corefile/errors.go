package corefile

import (
	"errors"
	"strings"
)

// maxErrors is how many errors of a block or a file are told: they may all have
// one cause, such as a file of another kind.
const maxErrors = 10

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

// Messages returns what an error says, each error of a line by itself.
func Messages(err error) []string {
	if all, ok := errors.AsType[Errors](err); ok {
		if context, found := strings.CutSuffix(err.Error(), all.Error()); found {
			messages := make([]string, len(all))
			for i, e := range all {
				messages[i] = context + e.Error()
			}
			return messages
		}
	}
	return []string{err.Error()}
}

// full reports whether there are so many errors that no more are told.
func (e Errors) full() bool { return len(e) == maxErrors }

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
