package main

import (
	"runtime/debug"

	"github.com/coredns/coredns/coremain"
	"github.com/coredns/coredns/plugin"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

var buildInfo = promauto.NewGaugeVec(prometheus.GaugeOpts{
	Namespace: plugin.Namespace,
	Subsystem: "dnslb",
	Name:      "build_info",
	Help:      "Gauge that is 1, with the versions of this program, of CoreDNS and of Go.",
}, []string{"version", "coredns", "goversion"})

// release is the version of a release, set by the linker.
var release string

// version returns the version of the release or of the module or, if it was not
// built from a tagged version, the commit.
func version() string {
	if release != "" {
		return release
	}
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
