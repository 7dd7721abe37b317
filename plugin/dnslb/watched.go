package dnslb

import (
	"io/fs"
	"os"
	"time"
)

// watchedFile is a file that is read again when it has changed.
type watchedFile struct {
	path string // "": there is none

	looked bool  // at least once
	seen   stamp // when it was last looked at
	read   stamp // when it was last read
}

// stamp tells whether a file has changed.
type stamp struct {
	modified time.Time
	size     int64
	mode     fs.FileMode // it may not have been readable
}

func stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}
	}
	return stamp{info.ModTime(), info.Size(), info.Mode()}
}

// changed reports whether the file is to be read: for the first time, or since it
// is another one than was read. One that is not as it was at the last look may be
// half written, and is left for the next.
func (f *watchedFile) changed() bool {
	if f.path == "" {
		return false
	}
	now := stampOf(f.path) // before it is read, so that no change is missed
	settled := !f.looked || now == f.seen
	if f.seen = now; !settled || f.looked && now == f.read {
		return false
	}
	f.looked, f.read = true, now
	return true
}

// settling reports whether the file has changed and waits for the next look.
func (f *watchedFile) settling() bool { return f.seen != f.read }
