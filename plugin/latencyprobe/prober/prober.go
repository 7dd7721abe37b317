// Package prober measures the latency of one address, once, by one of five
// methods: a TCP handshake (tcp.go), a TLS handshake (tls.go), an HTTP request
// (http.go), a DNS query (dns.go) or an ICMP echo (icmp.go, echo.go).
//
// parse.go reads a method as it stands in a Corefile, reason.go sorts the failures
// of targets, local.go those of this machine.
// A goroutine may run long after its packet has arrived, so that TCP and DNS
// take the time of the kernel where they can (kernel_linux.go). No method
// believes a time that the target sends, or the wall clock alone: it may be set
// meanwhile.
package prober

import (
	"context"
	"iter"
	"net/netip"
	"time"
)

// Prober measures by one method. It keeps nothing about the addresses that it
// measures: one Prober serves any number of them, at the same time.
type Prober interface {
	// Probe measures addr, from source or, if that is invalid, from an address
	// that the kernel chooses. ctx bounds the time. LocalReasonOf and ReasonOf
	// sort the errors.
	Probe(ctx context.Context, addr, source netip.Addr) (Result, error)
	// Method returns the name of the method, a label value of metrics.
	Method() string
	// ID returns the method and all its arguments: measurements compare if the
	// IDs are equal. State files hold IDs, so they must never change.
	ID() string
}

// Result is one measurement.
type Result struct {
	// RTT is the latency to rank by. It is 0 if the probe succeeded and its time
	// cannot be told.
	RTT time.Duration
	// KernelTimed tells that the kernel measured RTT. If it did not, a busy
	// process may have added to it.
	KernelTimed bool

	// The phases of TLS and HTTP, zero for other methods: Connect and TLS
	// alone, FirstByte and Total since the start.
	Connect, TLS, FirstByte, Total time.Duration
}

// Phases yields the phases that were measured, by their names in metrics and
// JSON.
func (r Result) Phases() iter.Seq2[string, time.Duration] {
	return func(yield func(string, time.Duration) bool) {
		for _, phase := range []struct {
			name string
			took time.Duration
		}{{"connect", r.Connect}, {"tls", r.TLS}, {"first_byte", r.FirstByte}, {"total", r.Total}} {
			if phase.took > 0 && !yield(phase.name, phase.took) {
				return
			}
		}
	}
}
