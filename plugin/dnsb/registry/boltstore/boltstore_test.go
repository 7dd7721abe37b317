package boltstore

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration/registrationtest"
	"github.com/coredns-dnslb/coredns-dnslb/plugin/dnsb/registry"
)

const testZone = registrationtest.Zone

// open returns a registry with the store at path.
func open(t testing.TB, path string) *registry.Registry {
	t.Helper()
	r := registry.New(testZone)
	if err := r.SetStore(Location(path), time.Hour); err != nil {
		t.Fatalf("Expected the store to open, got: %v", err)
	}
	return r
}

func register(t testing.TB, r *registry.Registry, reg *registration.Registration, serial uint64) {
	t.Helper()
	reg.Serial = serial
	if _, _, err := r.Apply(reg, time.Hour); err != nil {
		t.Fatalf("Expected %s to register, got: %v", reg.Node, err)
	}
}

func TestStoreOutlivesProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "map.db")
	r := open(t, path)
	a := registrationtest.Node("a", "192.0.2.1", "10.0.0.0/8", "!10.1.0.0/16", "2001:db8::/32")
	a.Location, a.Deputies, a.ClientSubnets = "48 51 0.000 N 02 21 0.000 E 35m 1m 10000m 10m", []string{"b"}, true
	register(t, r, a, 1000)
	register(t, r, registrationtest.Node("b", "192.0.2.2"), 1000)
	register(t, r, registrationtest.Node("c", "192.0.2.3"), 1000)
	register(t, r, registrationtest.Node("c", "192.0.2.3", "11.0.0.0/8"), 1001)
	register(t, r, a, 2000)
	register(t, r, &registration.Registration{Zone: testZone, Node: "b"}, 1500)
	old := r.State()
	r.Close()

	r = open(t, path)
	defer r.Close()
	st := r.State()
	if len(st.Records) != 2 || !registry.SameContent(st.Records["a"].Registration, old.Records["a"].Registration) ||
		!registry.SameContent(st.Records["c"].Registration, old.Records["c"].Registration) {
		t.Errorf("Expected %v, got %v", old.Records, st.Records)
	}
	if left := time.Until(st.Records["a"].LeaseEnd); left < 59*time.Minute || left > time.Hour || st.Records["a"].Serial != 2000 {
		t.Errorf("Expected a longest lease and the last serial, got %s, %d", left, st.Records["a"].Serial)
	}
	for node, last := range map[string]uint64{"a": 2000, "b": 1500, "c": 1001} {
		reg := registrationtest.Node(node, "192.0.2.9")
		reg.Serial = last - 1
		if outcome, _, err := r.Apply(reg, time.Hour); outcome != registry.WrongSerial {
			t.Errorf("Expected an old serial of %s to be refused after a restart, got %s, %v", node, outcome, err)
		}
	}
	if st.Serial <= old.Serial {
		t.Errorf("Expected the serial of the zone to grow over a restart, got %d after %d", st.Serial, old.Serial)
	}
	if until := r.ColdUntil(time.Hour); until.After(time.Now()) {
		t.Errorf("Expected the registry to be complete from the start, got %s", until)
	}

	other := registry.New("other.example.org.")
	defer other.Close()
	if err := other.SetStore(Location(path), time.Hour); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("Expected a file to serve one zone, got: %v", err)
	}
	if err := other.SetStore(Location(filepath.Join(t.TempDir(), "no", "map.db")), time.Hour); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("Expected an error for a missing directory, got: %v", err)
	}
}

// TestStoredForm compares all that is in a file with what an earlier version
// wrote, all but the serial of the zone, which is the time.
func TestStoredForm(t *testing.T) {
	path := filepath.Join(t.TempDir(), "map.db")
	r := open(t, path)
	register(t, r, registrationtest.Node("par1", "192.0.2.53", "198.51.100.0/24", "!198.51.100.128/25"), 1763800000123)
	register(t, r, registrationtest.Node("nyc1", "192.0.2.54"), 1763800000124)
	register(t, r, &registration.Registration{Zone: testZone, Node: "nyc1"}, 1763800000125)
	serial := r.Serial()
	r.Close()

	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var got bytes.Buffer
	var list func(indent string, b *bolt.Bucket) error
	list = func(indent string, b *bolt.Bucket) error {
		return b.ForEach(func(key, value []byte) error {
			switch {
			case value == nil:
				fmt.Fprintf(&got, "%s%s\n", indent, key)
				return list(indent+"  ", b.Bucket(key))
			case string(key) == "serial" && hex.EncodeToString(value) == fmt.Sprintf("%08x", serial):
				fmt.Fprintf(&got, "%s%s: of the zone\n", indent, key)
			default:
				fmt.Fprintf(&got, "%s%s: %x\n", indent, key, value)
			}
			return nil
		})
	}
	err = db.View(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			fmt.Fprintf(&got, "%s\n", name)
			return list("  ", b)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/store.golden")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("Expected\n%s, got\n%s", want, got.Bytes())
	}
}

// A store that comes with a reload takes what is registered; one that goes does
// not take it away.
func TestStoreChanges(t *testing.T) {
	first, second := filepath.Join(t.TempDir(), "1.db"), filepath.Join(t.TempDir(), "2.db")
	r := open(t, second)
	register(t, r, registrationtest.Node("b", "192.0.2.2"), 7)
	r.Close()

	r = registry.New(testZone)
	register(t, r, registrationtest.Node("a", "192.0.2.1"), 1000)
	for _, at := range []registry.Location{Location(first), Location(first), Location(second), nil} {
		if err := r.SetStore(at, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	register(t, r, registrationtest.Node("c", "192.0.2.3"), 1000)
	if n := len(r.State().Records); n != 3 {
		t.Errorf("Expected 3 nodes in memory, got %d", n)
	}
	r.Close()
	for path, want := range map[string]int{first: 1, second: 2} {
		r := open(t, path)
		if n := len(r.State().Records); n != want {
			t.Errorf("Expected %d nodes in %s, got %d", want, path, n)
		}
		r.Close()
	}
}

func TestCorruptFileIsSetAside(t *testing.T) {
	whole := filepath.Join(t.TempDir(), "map.db")
	r := open(t, whole)
	reg := registrationtest.Node("a", "192.0.2.1")
	for i := range 5000 {
		reg.Prefixes = append(reg.Prefixes, registration.Prefix{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)})
	}
	register(t, r, reg, 1000)
	register(t, r, registrationtest.Node("b", "192.0.2.2"), 1000)
	r.Close()
	content, err := os.ReadFile(whole) // #nosec G304 -- a test
	if err != nil {
		t.Fatal(err)
	}

	for name, corrupt := range map[string]func([]byte) []byte{
		"text":      func([]byte) []byte { return []byte("not a database\n") },
		"two pages": func(b []byte) []byte { return b[:8192] },
		"half":      func(b []byte) []byte { return b[:len(b)/2] },
		"metas":     func(b []byte) []byte { clear(b[:8192]); return b },
		"pages":     func(b []byte) []byte { clear(b[8192:]); return b },
		"noise": func(b []byte) []byte {
			r := rand.New(rand.NewPCG(1, 1)) // #nosec G404 -- a test
			for i := 8192; i < len(b); i++ {
				b[i] = byte(r.Uint32())
			}
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "map.db")
			if err := os.WriteFile(path, corrupt(bytes.Clone(content)), 0o600); err != nil {
				t.Fatal(err)
			}
			r := open(t, path)
			if n := len(r.State().Records); n != 0 {
				t.Errorf("Expected an empty map, got %d nodes", n)
			}
			register(t, r, registrationtest.Node("c", "192.0.2.3"), 1000)
			r.Close()
			aside, err := filepath.Glob(path + ".damaged-*")
			if err != nil || len(aside) != 1 {
				t.Errorf("Expected the file to be set aside, got %v", aside)
			}
			again := open(t, path)
			defer again.Close()
			if n := len(again.State().Records); n != 1 {
				t.Errorf("Expected a store that works, got %d nodes", n)
			}
		})
	}
}

// TestAcknowledgedSurvivesKill kills a process that registers with one serial
// after the other.
func TestAcknowledgedSurvivesKill(t *testing.T) {
	const env = "DNSB_TEST_STORE"
	node := func(serial uint64) *registration.Registration {
		return registrationtest.Node("a", "192.0.2.1", fmt.Sprintf("10.%d.%d.0/24", serial/256%256, serial%256))
	}
	if path := os.Getenv(env); path != "" {
		r := open(t, path)
		serial := uint64(1)
		if rec := r.State().Records["a"]; rec != nil {
			serial = rec.Serial + 1
		}
		for ; ; serial++ {
			register(t, r, node(serial), serial)
			fmt.Println("acknowledged", serial)
		}
	}
	path := filepath.Join(t.TempDir(), "map.db")
	acknowledged := uint64(0)
	for range 5 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestAcknowledgedSurvivesKill$") // #nosec G204 -- this test
		cmd.Env = append(os.Environ(), env+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		n, stop := 0, 20+rand.IntN(80) // #nosec G404 -- a test
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if _, err := fmt.Sscan(strings.TrimPrefix(lines.Text(), "acknowledged"), &acknowledged); err != nil {
				t.Fatalf("Expected a serial, got %q", lines.Text())
			}
			if n++; n == stop {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait()

		r := open(t, path)
		rec := r.State().Records["a"]
		if rec == nil || rec.Serial < acknowledged || rec.Serial > acknowledged+1 {
			t.Fatalf("Expected serial %d or the next, got %+v", acknowledged, rec)
		}
		if want := node(rec.Serial).Prefixes; len(rec.Prefixes) != 1 || rec.Prefixes[0] != want[0] {
			t.Errorf("Expected %s with serial %d, got %v", want, rec.Serial, rec.Prefixes)
		}
		r.Close()
		if aside, _ := filepath.Glob(path + ".damaged-*"); len(aside) > 0 {
			t.Fatalf("Expected an undamaged file, got %v", aside)
		}
	}
}

// closing is a location whose stores a test can close.
type closing struct {
	Location
	opened *registry.Store
}

func (c closing) Open(zone string) (registry.Store, []registry.Entry, error) {
	s, entries, err := c.Location.Open(zone)
	*c.opened = s
	return s, entries, err
}

func TestFailedWriteChangesNothing(t *testing.T) {
	var store registry.Store
	r := registry.New(testZone)
	defer r.Close()
	if err := r.SetStore(closing{Location(filepath.Join(t.TempDir(), "map.db")), &store}, time.Hour); err != nil {
		t.Fatal(err)
	}
	register(t, r, registrationtest.Node("a", "192.0.2.1"), 1000)
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	for _, reg := range []*registration.Registration{registrationtest.Node("a", "192.0.2.7"), registrationtest.Node("b", "192.0.2.2"), {Zone: testZone, Node: "a"}} {
		reg.Serial = 2000
		if outcome, _, err := r.Apply(reg, time.Hour); outcome != registry.StoreFailed || err == nil {
			t.Errorf("Expected a failure, got %s, %v", outcome, err)
		}
	}
	older := registrationtest.Node("a", "192.0.2.1")
	older.Serial = 1500
	if outcome, _, _ := r.Apply(older, time.Hour); outcome != registry.StoreFailed {
		t.Errorf("Expected the last serial to be the stored one, got %s", outcome)
	}
	st := r.State()
	if len(st.Records) != 1 || st.Records["a"].Addresses[0].String() != "192.0.2.1" || st.Records["a"].Serial != 1000 {
		t.Errorf("Expected what was stored to stay, got %v", st.Records)
	}
}

// TestReadBesideWriter checks that a store can be read while a server writes to it,
// and that nothing of it changes.
func TestReadBesideWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "map.db")
	if held, err := Location(path).Read(testZone); len(held.Entries) != 0 || err != nil {
		t.Errorf("Expected an empty store where there is none, got %v: %v", held, err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("Expected no file to be made")
	}
	r := open(t, path)
	defer r.Close()
	register(t, r, registrationtest.Node("n", "192.0.2.1"), 1)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for serial := uint64(2); ; serial++ {
			select {
			case <-stop:
				return
			default:
			}
			reg := registrationtest.Node("n", "192.0.2.1", fmt.Sprintf("10.%d.0.0/16", serial%256))
			reg.Serial = serial
			if _, _, err := r.Apply(reg, time.Hour); err != nil {
				t.Errorf("Expected the node to register, got: %v", err)
				return
			}
		}
	}()
	for range 50 {
		if held, err := Location(path).Read(testZone); err != nil || len(held.Entries) == 1 && len(held.Entries[0].Registration.Prefixes) > 1 {
			t.Errorf("Expected what a server writes, got %v: %v", held, err)
		}
	}
	close(stop)
	<-done
	held, err := Location(path).Read(testZone)
	entries := held.Entries
	if err != nil || len(entries) != 1 || entries[0].Serial != r.LastSerial("n") || !registry.SameContent(entries[0].Registration, r.State().Records["n"].Registration) {
		t.Errorf("Expected what is registered, got %v: %v", entries, err)
	}
	if aside, _ := filepath.Glob(path + ".*"); len(aside) > 0 {
		t.Errorf("Expected no other file, got %v", aside)
	}

	damaged := filepath.Join(t.TempDir(), "map.db")
	if err := os.WriteFile(damaged, bytes.Repeat([]byte("x"), 16384), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Location(damaged).Read(testZone); err == nil || !strings.Contains(err.Error(), "corrupt") {
		t.Errorf("Expected an error for a damaged file, got %v", err)
	}
	if aside, _ := filepath.Glob(damaged + "*"); len(aside) != 1 {
		t.Errorf("Expected the damaged file to stay, got %v", aside)
	}
}
