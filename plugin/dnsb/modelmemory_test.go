package dnsb

import (
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"

	"pgregory.net/rapid"
)

// memoryUnderTest is no store: one server, which forgets all when it ends.
type memoryUnderTest struct{}

func (memoryUnderTest) servers() int                             { return 1 }
func (memoryUnderTest) location(int) registry.Location           { return nil }
func (memoryUnderTest) crash(int)                                {}
func (memoryUnderTest) reachable() bool                          { return true }
func (memoryUnderTest) settle(*rapid.T, *model)                  {}
func (memoryUnderTest) actions(*model) map[string]func(*rapid.T) { return nil }
func (memoryUnderTest) close()                                   {}
