package dnslb

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

const (
	// saveAbove is above how many services the space for garbage counts: the collector
	// leaves as much as is in use.
	saveAbove = 10_000
	// savePercent is how much of that it leaves then. What services have lives long,
	// and little garbage is made of it.
	savePercent    = 25
	defaultPercent = 100
)

// garbage is what the garbage collector, which the process has one of, leaves for its
// services.
var garbage collector

// collector sets how much space the garbage collector leaves, by the services of all
// instances, unless the environment or the rest of the program has set it. The zero
// value is ready.
type collector struct {
	mu       sync.Mutex
	services map[*DNSLB]int
	saving   bool // it has set savePercent
}

// set notes how many services an instance has; 0 when it ends.
func (c *collector) set(instance *DNSLB, services int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.services == nil {
		c.services = make(map[*DNSLB]int)
	}
	c.services[instance] = services
	if services == 0 {
		delete(c.services, instance)
	}
	sum := 0
	for _, n := range c.services {
		sum += n
	}
	if os.Getenv("GOGC") != "" {
		return
	}
	switch many, percent := sum > saveAbove, gcPercent(); {
	case many && percent == defaultPercent:
		debug.SetGCPercent(savePercent)
		c.saving = true
	case !many && c.saving:
		c.saving = false
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
