//go:build !linux

package boltstore

import "os"

// inMemory returns a file that has no name and this content.
func inMemory(content []byte) (*os.File, error) {
	f, err := os.CreateTemp("", "store")
	if err != nil {
		return nil, err
	}
	_ = os.Remove(f.Name())
	if _, err := f.Write(content); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}
