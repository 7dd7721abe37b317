//go:build !linux

package prober

import (
	"context"
	"errors"
	"net/netip"
)

// Path measures routers on the way to an address. This system does not tell who
// answered.
type Path struct{}

// OpenPath returns an error.
func OpenPath(context.Context, DNS, netip.Addr, netip.Addr) (*Path, error) {
	return nil, errors.ErrUnsupported
}

// Close does nothing.
func (*Path) Close() {}

// Probe returns an error.
func (*Path) Probe(context.Context, int) (Hop, error) { return Hop{}, errors.ErrUnsupported }
