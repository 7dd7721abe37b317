// Package wiring is for what a plugin needs of the others in its server block:
// it shows only when all of them are set up.
package wiring

import "github.com/coredns/caddy"

type checksKey struct{}

// Check has f run once all plugins are set up, before anything starts that is
// arranged after it: when the server starts, and when a Corefile is validated. f
// must not start anything, nor depend on the machine.
func Check(c *caddy.Controller, f func() error) {
	c.OnStartup(f)
	c.Set(checksKey{}, append(Checks(c), f))
}

// Checks returns the checks of all server blocks, in the order of set-up. They
// are for after the servers were made.
func Checks(c *caddy.Controller) []func() error {
	checks, _ := c.Get(checksKey{}).([]func() error)
	return checks
}
