package boltstore

import (
	"os"

	"golang.org/x/sys/unix"
)

// inMemory returns a file in memory with this content.
func inMemory(content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("store", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "store") // #nosec G115 -- not negative
	if _, err := f.Write(content); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}
