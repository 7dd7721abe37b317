// Package garbage sets how much space the garbage collector leaves to garbage, of which a
// process has one.
package garbage

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

const (
	// savePercent is how much of what is in use the collector leaves while somebody
	// wants to save space.
	savePercent    = 25
	defaultPercent = 100
)

var process saver

// saver sets the percentage while somebody wants to save space, unless the environment
// or the rest of the program has set it. The zero value is ready.
type saver struct {
	mu     sync.Mutex
	wanted int  // how many want to save space
	saving bool // savePercent is set
}

// Save makes garbage take at most a quarter of the space that is in use, instead of as much
// as that, until the returned function is called, once. It costs CPU time: call it for what
// lives long, or for work that is done soon. It does nothing while the environment
// variable GOGC, or the rest of the program, has set another percentage.
func Save() (end func()) {
	process.add(1)
	return sync.OnceFunc(func() { process.add(-1) })
}

func (s *saver) add(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted += n
	if os.Getenv("GOGC") != "" {
		return
	}
	switch percent := gcPercent(); {
	case s.wanted > 0 && percent == defaultPercent:
		debug.SetGCPercent(savePercent)
		s.saving = true
	case s.wanted == 0 && s.saving:
		s.saving = false
		if percent == savePercent { // else somebody has set it since
			debug.SetGCPercent(defaultPercent)
		}
	}
}

// gcPercent returns what debug.SetGCPercent has set.
func gcPercent() uint64 {
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
