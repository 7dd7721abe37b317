//go:build unix

package operator

import (
	"io/fs"
	"os"
	"syscall"
)

// KeepOwner gives a file the owner of another one, as far as this process may: the
// server must be able to read what root has edited.
func KeepOwner(path string, info fs.FileInfo) {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		_ = os.Chown(path, int(stat.Uid), int(stat.Gid))
	}
}
