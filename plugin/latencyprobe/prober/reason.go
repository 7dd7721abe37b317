package prober

import (
	"context"
	"errors"
	"slices"
	"syscall"
)

// Reason is the kind of a failure, a label value of metrics.
type Reason string

// The reasons of failures. A probe that succeeded has none.
const (
	Refused     Reason = "refused"     // the connection was refused
	Timeout     Reason = "timeout"     // nothing came back in time
	Unreachable Reason = "unreachable" // the kernel or a router has no route, or a router rejects
	WrongAnswer Reason = "answer"      // an answer came, and it is not the expected one
	Other       Reason = "other"
)

// unreachable are the errors of Unreachable. A machine without IPv6 has
// EAFNOSUPPORT, for EACCES see rejectedOnPath.
var unreachable = []syscall.Errno{
	syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ENETDOWN, syscall.EHOSTDOWN, syscall.EAFNOSUPPORT, syscall.EACCES,
}

// ReasonOf returns the reason of an error of Probe, "" if that is nil. The error
// must not be of this machine: see LocalReasonOf.
func ReasonOf(err error) Reason {
	var timeout interface{ Timeout() bool }
	switch {
	case err == nil:
		return ""
	case errors.Is(err, syscall.ECONNREFUSED):
		return Refused
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return Timeout
	case slices.ContainsFunc(unreachable, func(errno syscall.Errno) bool { return errors.Is(err, errno) }):
		return Unreachable
	case errors.As(err, new(AnswerError)):
		return WrongAnswer
	}
	return Other
}

// Reached reports whether something answered, given an error of Probe: the
// target or, in case of a refusal, perhaps a firewall in front of it. A target
// that accepts a connection and says nothing has answered.
func Reached(err error) bool {
	if errors.As(err, new(reachedError)) {
		return true
	}
	reason := ReasonOf(err)
	return reason != Timeout && reason != Unreachable
}

// Replied reports whether the target itself answered, given an error of Probe, be
// it not as expected. A refusal is no answer.
func Replied(err error) bool {
	return err == nil || errors.As(err, new(reachedError)) || ReasonOf(err) == WrongAnswer
}

// reachedError is a failure after the target had answered.
type reachedError struct{ error }

// Unwrap serves errors.Is and errors.As.
func (e reachedError) Unwrap() error { return e.error }

// AnswerError tells why an answer is not the expected one.
type AnswerError string

// Error implements the error interface.
func (e AnswerError) Error() string { return string(e) }
