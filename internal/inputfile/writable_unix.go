//go:build unix

package inputfile

import "golang.org/x/sys/unix"

// writable returns an error if this process cannot create files in a directory.
func writable(dir string) error { return unix.Access(dir, unix.W_OK|unix.X_OK) }
