// Package testrace finds data races in what a program built with -race prints.
package testrace

import (
	"regexp"
	"strings"
)

// Find returns the reports of data races in the output of a program, except of
// those within caddy, which loads Corefiles for CoreDNS: its signals, its
// reloads and its start share variables without a lock.
func Find(output string) []string {
	var found []string
	for part := range strings.SplitSeq(output, "==================\n") {
		if strings.Contains(part, "WARNING: DATA RACE") && !withinCaddy(part) {
			found = append(found, part)
		}
	}
	return found
}

// access is the heading of an access to memory, and the innermost function of
// its stack.
var access = regexp.MustCompile(`(?im)^ *(?:previous )?(?:atomic )?(?:read|write) at 0x.*\n *(.*)$`)

// withinCaddy returns whether both accesses are caddy's, and this module takes
// no part in them.
func withinCaddy(report string) bool {
	accesses, _, _ := strings.Cut(report, "\nGoroutine ")
	tops := access.FindAllStringSubmatch(accesses, -1)
	for _, top := range tops {
		if !strings.HasPrefix(top[1], "github.com/coredns/caddy.") {
			return false
		}
	}
	return len(tops) == 2 && !strings.Contains(accesses, "github.com/coredns-dnslb/")
}
