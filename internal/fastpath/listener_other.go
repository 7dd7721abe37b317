//go:build !linux

package fastpath

import "errors"

// listener does not exist: no server block is admitted.
type listener struct{}

func newListener(string) *listener { return &listener{} }

func (*listener) configure(site) error { return errors.New("only Linux has the fast path") }

func (*listener) close() {}

func enlargeReceiveBuffers(string) {}
