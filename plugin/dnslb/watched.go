package dnslb

import "github.com/coredns-dnslb/coredns-dnslb/internal/stamp"

// watchedFile is a file that is read again when it has changed.
type watchedFile struct {
	path string // "": there is none

	looked bool        // at least once
	seen   stamp.Stamp // when it was last looked at
	read   stamp.Stamp // when it was last read
}

// changed reports whether the file is to be read: for the first time, or since it
// is another one than was read. One that is not as it was at the last look may be
// half written, and is left for the next.
func (f *watchedFile) changed() bool {
	if f.path == "" {
		return false
	}
	now, _ := stamp.Of(f.path) // before it is read, so that no change is missed
	settled := !f.looked || now.Is(f.seen)
	if f.seen = now; !settled || f.looked && now.Is(f.read) {
		return false
	}
	f.looked, f.read = true, now
	return true
}

// settling reports whether the file has changed and waits for the next look.
func (f *watchedFile) settling() bool { return !f.seen.Is(f.read) }
