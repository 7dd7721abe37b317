//go:build !unix

package operator

import "io/fs"

// KeepOwner does nothing: files have no owner as on Unix.
func KeepOwner(string, fs.FileInfo) {}
