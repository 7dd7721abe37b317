package main

import (
	"runtime/debug"

	"github.com/coredns/coredns/coremain"
)

// version names the build: the module's version where it was built from one,
// else the commit.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	setting := make(map[string]string)
	for _, s := range info.Settings {
		setting[s.Key] = s.Value
	}
	commit := setting["vcs.revision"]
	if coremain.GitCommit == "" {
		coremain.GitCommit = commit
	}
	switch v := info.Main.Version; {
	case v != "" && v != "(devel)":
		return v
	case commit == "":
		return "devel"
	case setting["vcs.modified"] == "true":
		return "devel-" + commit[:min(12, len(commit))] + "-modified"
	default:
		return "devel-" + commit[:min(12, len(commit))]
	}
}
