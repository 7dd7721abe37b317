// Package testcpu measures what benchmarks take of the processors.
package testcpu

import (
	"syscall"
	"testing"
	"time"
)

// Time returns the CPU time of this process, on all cores.
func Time(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
