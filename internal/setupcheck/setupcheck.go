// Package setupcheck is for what a plugin can do only when all plugins of the
// server block are set up: checks, and the rehearsal of the start, by which a
// Corefile is validated.
package setupcheck

import "github.com/coredns/caddy"

type (
	checksKey     struct{}
	rehearsalsKey struct{}
	notesKey      struct{}
)

// Add has check run once all plugins are set up: before OnStartup functions that
// are added later, and when a Corefile is validated. The check must not start
// anything, and not depend on the machine.
func Add(c *caddy.Controller, check func() error) {
	c.OnStartup(check)
	c.Set(checksKey{}, append(All(c), check))
}

// All returns the checks of all server blocks, in the order of set-up. Run them
// after the context has made the servers.
func All(c *caddy.Controller) []func() error {
	checks, _ := c.Get(checksKey{}).([]func() error)
	return checks
}

// Rehearse has rehearse run when a Corefile is validated, in place of the start of
// a plugin. It makes by the same functions what the start makes, and returns each
// error that the start has. It leaves no trace: it changes and locks no file, and
// sends and serves nothing.
func Rehearse(c *caddy.Controller, rehearse func() error) {
	c.Set(rehearsalsKey{}, append(Rehearsals(c), rehearse))
}

// Rehearsals returns those of all server blocks, in the order of set-up. Run them
// after the checks, if these have found nothing.
func Rehearsals(c *caddy.Controller) []func() error {
	rehearsals, _ := c.Get(rehearsalsKey{}).([]func() error)
	return rehearsals
}

// Note has note called when a Corefile is validated, if nothing is wrong with it, and
// its text printed: what the start logs that an operator wants to know before.
func Note(c *caddy.Controller, note func() string) {
	c.Set(notesKey{}, append(Notes(c), note))
}

// Notes returns those of all server blocks, in the order of set-up.
func Notes(c *caddy.Controller) []func() string {
	notes, _ := c.Get(notesKey{}).([]func() string)
	return notes
}
