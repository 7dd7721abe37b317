package etcdstore

import (
	"crypto/rand"
	"fmt"
	"strings"
)

// versionKey is the key, beside those of nodes, of the version of the format. What
// etcd holds has a name besides, which whoever writes first chooses: an etcd that
// lost it was filled again, and is to be read again, even if its revisions have
// come to where they were.
const versionKey = "version"

// formatVersion is the version of the format. Keys without one are of it, too.
const formatVersion = "1"

func newVersion() string { return formatVersion + " " + rand.Text() }

// checkVersion returns an error if a value of versionKey is not of the version of
// this program. "" means that there is none.
func checkVersion(value string) error {
	if version, _, _ := strings.Cut(value, " "); value != "" && version != formatVersion {
		return &versionError{version}
	}
	return nil
}

// versionError is the error of an etcd in which another program keeps
// registrations: nothing of it is to be read or changed.
type versionError struct{ version string }

func (e *versionError) Error() string {
	return fmt.Sprintf("etcd has keys of format version %q, this program reads version %s: run the program that has written them at this server, too; "+
		"no key was changed", e.version, formatVersion)
}
