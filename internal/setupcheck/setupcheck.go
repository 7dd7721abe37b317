// Package setupcheck is for checks of a plugin that need the other plugins of the
// server block: all of them must be set up first.
package setupcheck

import "github.com/coredns/caddy"

type checksKey struct{}

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
