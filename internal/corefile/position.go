// Package corefile parses the lines of Corefiles, and of files whose lines have
// the same words. With it the same mistake has the same error in all plugins.
package corefile

import (
	"fmt"

	"github.com/coredns/caddy/caddyfile"
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

// Errorf returns an error about the line, in the form of caddy's.
func (p Position) Errorf(format string, args ...any) error {
	return fmt.Errorf("%s - Error during parsing: %w", p, fmt.Errorf(format, args...))
}
