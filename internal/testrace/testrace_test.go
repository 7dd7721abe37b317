package testrace

import (
	"strings"
	"testing"
)

// report is one of Go 1.26; lines that do not matter are left out.
const report = `[INFO] SIGUSR1: Reloading
==================
WARNING: DATA RACE
Read at 0x000003214df0 by goroutine 108:
  github.com/coredns/caddy.trapSignalsPosix.func1()
      caddy@v1.1.4/sigtrap_posix.go:64 +0x68a

Previous write at 0x000003214df0 by goroutine 160:
  github.com/coredns/caddy.loadCaddyfileInput()
      caddy@v1.1.4/plugins.go:415 +0x186
  github.com/coredns/coredns/plugin/reload.hook.func1()
      coredns@v1.15.0/plugin/reload/reload.go:110 +0x1b6

Goroutine 108 (running) created at:
  github.com/coredns/caddy.TrapSignals()
      caddy@v1.1.4/sigtrap.go:31 +0x24
  main.main()
      main.go:45 +0x2ae

Goroutine 160 (running) created at:
  github.com/coredns/coredns/plugin/reload.hook()
      coredns@v1.15.0/plugin/reload/reload.go:103 +0x44a
==================
[INFO] Reloading
`

func TestFind(t *testing.T) {
	const ours = "github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb.(*DNSB).ServeDNS()"
	for name, tc := range map[string]struct {
		output string
		want   int
	}{
		"none":                  {"[INFO] Reloading\n", 0},
		"within caddy":          {report, 0},
		"twice":                 {report + report, 0},
		"read elsewhere":        {strings.Replace(report, "github.com/coredns/caddy.trapSignalsPosix.func1()", ours, 1), 1},
		"write elsewhere":       {strings.Replace(report, "github.com/coredns/caddy.loadCaddyfileInput()", "runtime.mapassign()", 1), 1},
		"called by this module": {strings.Replace(report, "github.com/coredns/coredns/plugin/reload.hook.func1()", ours, 1), 1},
		"one of two":            {report + strings.Replace(report, "caddy.loadCaddyfileInput", "coredns/plugin.F", 1), 1},
		"no stack":              {"WARNING: DATA RACE\n  [failed to restore the stack]\n", 1},
		"cut off":               {report[:strings.Index(report, "Previous")], 1},
	} {
		if got := Find(tc.output); len(got) != tc.want {
			t.Errorf("%s: Expected %d reports, got %q", name, tc.want, got)
		}
	}
}
