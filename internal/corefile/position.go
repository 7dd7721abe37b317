// Package corefile parses the lines of Corefiles, and of files whose lines have
// the same words. With it the same mistake has the same error in all plugins.
package corefile

import (
	"fmt"

	"github.com/coredns/caddy/caddyfile"

	"github.com/coredns-dnslb/coredns-dnslb/internal/inputfile"
)

// Position is a line of a file.
type Position struct {
	File string
	Line int // from 1
}

// PositionOf returns the position of the current token.
func PositionOf(d *caddyfile.Dispenser) Position { return Position{d.File(), d.Line()} }

// String returns the position as FILE:LINE.
func (p Position) String() string { return fmt.Sprintf("%s:%d", p.File, p.Line) }

// Errorf returns an error about the line, in the form of caddy's. It shows
// unprintable characters.
func (p Position) Errorf(format string, args ...any) error {
	return printable("%s - Error during parsing: %w", p, fmt.Errorf(format, args...))
}

// printableError has the text of another error, without unprintable characters.
type printableError struct {
	error
	text string
}

func printable(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return printableError{err, inputfile.Printable(err.Error())}
}

// Error implements the error interface.
func (e printableError) Error() string { return e.text }

// Unwrap returns the error with its own text.
func (e printableError) Unwrap() error { return e.error }
