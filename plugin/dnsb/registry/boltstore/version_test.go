package boltstore

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration/registrationtest"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
)

// edit changes the bucket of the zone in a file that no server has open.
func edit(t *testing.T, path string, change func(root *bolt.Bucket) error) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Update(func(tx *bolt.Tx) error { return change(tx.Bucket([]byte(testZone))) }); err != nil {
		t.Fatal(err)
	}
}

// TestFormatVersion checks that a file without a version, as earlier programs wrote
// it, is read, and that one of a newer program is refused and stays as it is.
func TestFormatVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "map.db")
	r := open(t, path)
	register(t, r, registrationtest.Node("a", "192.0.2.1"), 1000)
	r.Close()

	edit(t, path, func(root *bolt.Bucket) error { return root.Delete(versionKey) })
	r = open(t, path)
	if n := len(r.State().Records); n != 1 {
		t.Errorf("Expected a file without a version to be read, got %d nodes", n)
	}
	r.Close()

	edit(t, path, func(root *bolt.Bucket) error { return root.Put(versionKey, []byte{formatVersion + 1}) })
	content, err := os.ReadFile(path) // #nosec G304 -- a test
	if err != nil {
		t.Fatal(err)
	}
	r = registry.New(testZone)
	defer r.Close()
	_, readErr := Location(path).Read(testZone)
	for _, err := range []error{r.SetStore(Location(path), time.Hour), readErr} {
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "version 02, this program reads version 1") {
			t.Errorf("Expected a newer version to be refused, got %v", err)
		}
	}
	after, err := os.ReadFile(path) // #nosec G304 -- a test
	if err != nil || !bytes.Equal(after, content) {
		t.Errorf("Expected the file not to be changed: %v", err)
	}
	if all, _ := filepath.Glob(path + "*"); len(all) != 1 {
		t.Errorf("Expected the file to stay, got %v", all)
	}
}
