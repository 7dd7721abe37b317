//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// printVersions says what is compared, and on which machine.
func printVersions() {
	field := func(path, name string) string {
		text, _ := os.ReadFile(path) // #nosec G304 -- of /proc
		for line := range strings.Lines(string(text)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
				return strings.TrimSpace(value)
			}
		}
		return "unknown"
	}
	output := func(command ...string) string {
		out, err := exec.Command(command[0], command[1:]...).Output() // #nosec G204 -- the commands below
		if err != nil {
			return "unknown"
		}
		return strings.Join(strings.Fields(string(out)), " ")
	}
	load, _ := os.ReadFile("/proc/loadavg")
	fmt.Printf("date      %s\n", time.Now().UTC().Format(time.DateTime))
	fmt.Printf("processor %s, %s cores\n", field("/proc/cpuinfo", "model name"), output("nproc", "--all"))
	fmt.Printf("memory    %s\n", field("/proc/meminfo", "MemTotal"))
	fmt.Printf("load      %s (runnable tasks, 1, 5 and 15 minutes, before the measurement)\n", strings.Join(strings.Fields(string(load))[:3], " "))
	kernel, _, _ := strings.Cut(output("uname", "-sr"), "-") // without what its packager adds
	fmt.Printf("kernel    %s\n", kernel)
	fmt.Printf("program   %s, %s\n", strings.TrimSuffix(output(program, "-version"), ","), commit(output))
	fmt.Printf("go        %s\n", runtime.Version())
	fmt.Printf("packages  %s\n", output("dpkg-query", "-W", "-f", "${Package} ${Version}\n", "gdnsd", "knot", "pdns-server"))
}

// commit returns the last commit of the branch main that was measured, and whether
// there were changes to it: other commits may be rebased, and then nobody finds them.
func commit(output func(...string) string) string {
	base := output("git", "merge-base", "HEAD", "main")
	if base == "unknown" {
		return "unknown commit"
	}
	text := "commit " + output("git", "rev-parse", "--short", base)
	if exec.Command("git", "diff", "--quiet", base).Run() != nil { // #nosec G204 -- a commit
		text += " with changes"
	}
	return text
}
