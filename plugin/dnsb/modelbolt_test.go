package dnsb

import (
	"fmt"
	"os"
	"path/filepath"

	"pgregory.net/rapid"

	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry/boltstore"
)

// boltUnderTest is a database file of one server.
type boltUnderTest struct {
	dir     string
	crashes int
}

func (b *boltUnderTest) path() string {
	return filepath.Join(b.dir, fmt.Sprintf("map%d.db", b.crashes))
}

func (b *boltUnderTest) servers() int                   { return 1 }
func (b *boltUnderTest) location(int) registry.Location { return boltstore.Location(b.path()) }

// crash makes a copy of the file, as it is while the process has it open, the one
// that counts.
func (b *boltUnderTest) crash(int) {
	content, err := os.ReadFile(b.path())
	if err == nil {
		b.crashes++
		err = os.WriteFile(b.path(), content, 0o600)
	}
	if err != nil {
		panic(err)
	}
}

func (b *boltUnderTest) reachable() bool                          { return true }
func (b *boltUnderTest) settle(*rapid.T, *model)                  {}
func (b *boltUnderTest) actions(*model) map[string]func(*rapid.T) { return nil }

func (b *boltUnderTest) close() {
	for ; b.crashes >= 0; b.crashes-- {
		_ = os.Remove(b.path())
	}
}
