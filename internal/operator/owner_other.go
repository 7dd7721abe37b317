//go:build !unix

package operator

import "io/fs"

// keepOwner does nothing: files have no owner as on Unix.
func keepOwner(string, fs.FileInfo) {}
