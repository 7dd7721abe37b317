package boltstore

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration/registrationtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/testmount"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
)

// large returns a registration that takes 40 KB of the store.
func large(node string) *registration.Registration {
	var prefixes []string
	for i := range 5000 {
		prefixes = append(prefixes, fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255))
	}
	reg := registrationtest.Node(node, "192.0.2.9", prefixes...)
	reg.Serial = 1000
	return reg
}

// expect checks which nodes a store holds, those of a registry and of the file.
func expect(t *testing.T, r *registry.Registry, path string, nodes ...string) {
	t.Helper()
	held, err := Location(path).Read(testZone)
	entries := held.Entries
	if err != nil || len(entries) != len(nodes) {
		t.Errorf("Expected nodes %v in the file, got %v, %v", nodes, entries, err)
	}
	if n := len(r.State().Records); n != len(nodes) {
		t.Errorf("Expected %d nodes to be registered, got %d", len(nodes), n)
	}
	for _, node := range nodes {
		if r.State().Records[node] == nil {
			t.Errorf("Expected node %s to be registered", node)
		}
	}
}

// expectRefused checks that a registration is refused since the store failed.
func expectRefused(t *testing.T, r *registry.Registry, reg *registration.Registration, why string) {
	t.Helper()
	var e *registration.Error
	if _, _, err := r.Apply(reg, time.Minute); !errors.As(err, &e) || e.Rcode != dns.RcodeServerFailure || !strings.Contains(e.Text, why) {
		t.Errorf("Expected SERVFAIL with %q, got %v", why, err)
	}
}

func expectUp(t *testing.T, want float64) {
	t.Helper()
	if up := testutil.ToFloat64(registry.StoreUp.WithLabelValues(testZone)); up != want {
		t.Errorf("Expected the store to be up %v, got %v", want, up)
	}
}

// TestFullFileSystem checks that a store on a full file system keeps all that was
// acknowledged, refuses the rest and closes; that it opens there; and that it works
// again when there is space.
func TestFullFileSystem(t *testing.T) {
	fs := testmount.Mount(t)
	if fs == nil {
		return
	}
	log := logtest.Capture(t)
	path := filepath.Join(fs.Dir, "map.db")
	synctest.Test(t, func(t *testing.T) {
		r := open(t, path)
		expectUp(t, 1)
		register(t, r, registrationtest.Node("a", "192.0.2.1"), 1000)
		fs.Fill()
		for range 3 {
			expectRefused(t, r, large("b"), "no space left on device")
			expectUp(t, 0)
			time.Sleep(2 * checkInterval)
			synctest.Wait()
		}
		expect(t, r, path, "a")
		r.Close()

		log.Expect(t, "Failed to write store")

		for range 3 {
			r = open(t, path)
			expectRefused(t, r, large("b"), "no space left on device")
			expect(t, r, path, "a")
			r.Close()
			log.Expect(t, "Opened store", "Failed to write store")
		}

		r = open(t, path)
		expectRefused(t, r, large("b"), "no space left on device")
		log.Expect(t, "Opened store", "Failed to write store")
		fs.Free()
		if _, _, err := r.Apply(large("b"), time.Minute); err != nil {
			t.Errorf("Expected the registration to be taken, got %v", err)
		}
		expectUp(t, 1)
		expect(t, r, path, "a", "b")
		r.Close()
		r = open(t, path)
		expect(t, r, path, "a", "b")
		r.Close()
		log.Expect(t, "Recovered: store", "Opened store")
	})
	if testutil.CollectAndCount(registry.StoreUp) != 0 {
		t.Error("Expected no gauge of a store that is closed")
	}
}

// TestReadOnlyFileSystem checks that a store on a read-only file system opens with
// all that it holds, refuses registrations, and writes again when it can.
func TestReadOnlyFileSystem(t *testing.T) {
	fs := testmount.Mount(t)
	if fs == nil {
		return
	}
	log := logtest.Capture(t)
	path := filepath.Join(fs.Dir, "map.db")
	synctest.Test(t, func(t *testing.T) {
		r := open(t, path)
		register(t, r, registrationtest.Node("a", "192.0.2.1"), 1000)
		r.Close()
		fs.SetReadOnly(true)
		if _, err := Location(path).Read(testZone); err == nil || !strings.Contains(err.Error(), "read-only file system") {
			t.Errorf("Expected an error of the read-only file system, got %v", err)
		}

		r = open(t, path)
		if r.State().Records["a"] == nil {
			t.Error("Expected the node to be registered")
		}
		log.Expect(t, "Failed to write store", "Opened store")
		expectRefused(t, r, large("b"), "read-only file system")
		expectUp(t, 0)
		r.Close()
		log.Expect(t, "Failed to write store", "Failed to close store")

		r = open(t, path)
		log.Expect(t, "Failed to write store", "Opened store")
		fs.SetReadOnly(false)
		time.Sleep(2 * checkInterval)
		synctest.Wait()
		expectUp(t, 1)
		log.Expect(t, "Recovered: store")
		register(t, r, registrationtest.Node("c", "192.0.2.3"), 1000)
		expect(t, r, path, "a", "c")
		r.Close()

		fs.SetReadOnly(true)
		if _, _, err := Location(filepath.Join(fs.Dir, "new.db")).Open(testZone); err == nil || !strings.Contains(err.Error(), "read-only file system") {
			t.Errorf("Expected no new file on a read-only file system, got %v", err)
		}
	})
}
