//go:build unix

package tsigfiles

import (
	"os"
	"os/signal"
	"syscall"
)

// handled keeps the signal from ending a process in which caddy handles none.
var handled = make(chan os.Signal, 1)

// signalReload has caddy reload the Corefile, after the reloads of an operator.
func signalReload() error {
	signal.Notify(handled, syscall.SIGUSR1)
	return syscall.Kill(os.Getpid(), syscall.SIGUSR1)
}
