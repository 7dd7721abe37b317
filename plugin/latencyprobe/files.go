package latencyprobe

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/coredns/coredns/plugin"

	"github.com/coredns-dnslb/coredns-dnslb/internal/corefile"
	"github.com/coredns-dnslb/coredns-dnslb/internal/reload"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/latencyprobe/trace"
)

// traces owns the open traces of the process.
var traces = reload.Owner[string, *trace.Recorder, struct{}]{
	New:       func(path string) *trace.Recorder { return trace.New(path, traceDropped.Inc) },
	Configure: func(r *trace.Recorder, _ struct{}) error { return r.Open() },
	Close:     func(_ string, r *trace.Recorder) { r.Close() },
}

// openFiles opens the files of all probes.
func (l *LatencyProbe) openFiles() (err error) {
	for _, s := range l.probes {
		if s.statePath != "" {
			if s.stateFile, err = stateFiles.Hold(l.stateHolder, s.statePath, struct{}{}); err != nil {
				return plugin.Error(pluginName, err)
			}
		}
		if s.tracePath != "" {
			if s.trace, err = traces.Hold(l.traceHolder, s.tracePath, struct{}{}); err != nil {
				return plugin.Error(pluginName, err)
			}
		}
	}
	return nil
}

// checkFiles returns the errors that the files of all probes would cause at the
// start, and those of state files, without which it goes on.
func (l *LatencyProbe) checkFiles() error {
	var failed []error
	for _, s := range l.probes {
		if s.statePath != "" {
			if _, err := readStateFile(s.statePath); err != nil && !errors.Is(err, fs.ErrNotExist) {
				failed = append(failed, plugin.Error(pluginName, fmt.Errorf("state file %q, without which the server would start: %w", s.statePath, err)))
			}
		}
		if s.tracePath != "" {
			if err := trace.Check(s.tracePath); err != nil {
				failed = append(failed, plugin.Error(pluginName, err))
			}
		}
	}
	return corefile.Join(failed...)
}
