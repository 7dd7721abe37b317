// Package stamp tells whether a file has changed since it was looked at.
package stamp

import (
	"io/fs"
	"os"
)

// Stamp is what a file was like at one moment. The zero Stamp is that of a file
// that cannot be looked at.
type Stamp struct{ info fs.FileInfo }

// Of looks at a file. The error is that of os.Stat.
func Of(path string) (Stamp, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Stamp{}, err
	}
	return Stamp{info}, nil
}

// Is reports whether a file is still the one that it was: one that was put in its
// place may be as old and as long, and one with another mode may be readable now.
func (s Stamp) Is(old Stamp) bool {
	if s.info == nil || old.info == nil {
		return s.info == nil && old.info == nil
	}
	return os.SameFile(s.info, old.info) && s.info.ModTime().Equal(old.info.ModTime()) && s.info.Size() == old.info.Size() && s.info.Mode() == old.info.Mode()
}
