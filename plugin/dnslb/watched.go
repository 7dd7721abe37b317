package dnslb

import (
	"io/fs"
	"os"
)

// watchedFile is a file that is read again when it has changed.
type watchedFile struct {
	path string // "": there is none

	looked bool  // at least once
	seen   stamp // when it was last looked at
	read   stamp // when it was last read
}

// stamp tells whether a file has changed. It holds nothing where there is none.
type stamp struct{ fs.FileInfo }

func stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}
	}
	return stamp{info}
}

// is reports whether a file is still the one that it was: one that was put in its
// place may be as old and as long, and one with another mode may be readable now.
func (s stamp) is(old stamp) bool {
	if s.FileInfo == nil || old.FileInfo == nil {
		return s.FileInfo == nil && old.FileInfo == nil
	}
	return os.SameFile(s.FileInfo, old.FileInfo) && s.ModTime().Equal(old.ModTime()) && s.Size() == old.Size() && s.Mode() == old.Mode()
}

// changed reports whether the file is to be read: for the first time, or since it
// is another one than was read. One that is not as it was at the last look may be
// half written, and is left for the next.
func (f *watchedFile) changed() bool {
	if f.path == "" {
		return false
	}
	now := stampOf(f.path) // before it is read, so that no change is missed
	settled := !f.looked || now.is(f.seen)
	if f.seen = now; !settled || f.looked && now.is(f.read) {
		return false
	}
	f.looked, f.read = true, now
	return true
}

// settling reports whether the file has changed and waits for the next look.
func (f *watchedFile) settling() bool { return !f.seen.is(f.read) }
