package dnsb

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// restored returns a registry with the store at path.
func restored(t testing.TB, path string) *registry {
	t.Helper()
	r := newRegistry()
	if err := r.use(storage{db: path}, testZone, time.Hour); err != nil {
		t.Fatalf("Expected the store to open, got: %v", err)
	}
	return r
}

func put(t testing.TB, r *registry, reg *registration.Registration, serial uint64) {
	t.Helper()
	reg.Serial = serial
	if _, err := r.apply(reg, time.Hour); err != nil {
		t.Fatalf("Expected %s to register, got: %v", reg.Node, err)
	}
}

func TestStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "map.db")
	r := restored(t, path)
	a := nodeAt("a", "192.0.2.1", "10.0.0.0/8", "!10.1.0.0/16", "2001:db8::/32")
	a.Location, a.Deputies = "48 51 0.000 N 02 21 0.000 E 35m 1m 10000m 10m", []string{"b"}
	put(t, r, a, 1000)
	put(t, r, nodeAt("b", "192.0.2.2"), 1000)
	put(t, r, nodeAt("c", "192.0.2.3"), 1000)
	put(t, r, nodeAt("c", "192.0.2.3", "11.0.0.0/8"), 1001)
	put(t, r, a, 2000)
	put(t, r, &registration.Registration{Zone: testZone, Node: "b"}, 1500)
	old := r.state()
	r.close()

	r = restored(t, path)
	st := r.state()
	if len(st.records) != 2 || !same(st.records["a"].Registration, old.records["a"].Registration) || !same(st.records["c"].Registration, old.records["c"].Registration) {
		t.Errorf("Expected %v, got %v", old.records, st.records)
	}
	if left := time.Until(st.records["a"].ends); left < 59*time.Minute || left > time.Hour || st.records["a"].serial != 2000 {
		t.Errorf("Expected a longest lease and the last serial, got %s, %d", left, st.records["a"].serial)
	}
	for node, mark := range map[string]uint64{"a": 2000, "b": 1500, "c": 1001} {
		reg := nodeAt(node, "192.0.2.9")
		reg.Serial = mark - 1
		if result, err := r.apply(reg, time.Hour); result != late {
			t.Errorf("Expected an old serial of %s to be refused after a restart, got %s, %v", node, result, err)
		}
	}
	if st.serial <= old.serial {
		t.Errorf("Expected the serial of the zone to grow over a restart, got %d after %d", st.serial, old.serial)
	}

	d := startedWith(t, r, "accept k1 a any\naccept k1 new any", nil)
	if m := ask(t, d, "10.0.0.1", "nobody."+testZone, 1); m.Rcode != 3 {
		t.Errorf("Expected NXDOMAIN from the start with a store, got %v", m)
	}
	other := newRegistry()
	defer other.close()
	if err := other.use(storage{db: path}, "other.example.org.", time.Hour); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("Expected a file to serve one zone, got: %v", err)
	}
	if err := other.use(storage{db: filepath.Join(t.TempDir(), "no", "map.db")}, testZone, time.Hour); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("Expected an error for a missing directory, got: %v", err)
	}
}

// A store that comes with a reload takes what is registered; one that goes
// leaves it in memory.
func TestStoreChanges(t *testing.T) {
	first, second := filepath.Join(t.TempDir(), "1.db"), filepath.Join(t.TempDir(), "2.db")
	r := restored(t, second)
	put(t, r, nodeAt("b", "192.0.2.2"), 7)
	r.close()

	r = newRegistry()
	put(t, r, nodeAt("a", "192.0.2.1"), 1000)
	for _, path := range []string{first, first, second, ""} {
		if err := r.use(storage{db: path}, testZone, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	put(t, r, nodeAt("c", "192.0.2.3"), 1000)
	r.close()
	for path, want := range map[string]int{first: 1, second: 2} {
		r := restored(t, path)
		if n := len(r.state().records); n != want {
			t.Errorf("Expected %d nodes in %s, got %d", want, path, n)
		}
		r.close()
	}
}

func TestStoreDamaged(t *testing.T) {
	whole := filepath.Join(t.TempDir(), "map.db")
	r := restored(t, whole)
	reg := nodeAt("a", "192.0.2.1")
	for _, p := range randomPrefixes(5000, 1) {
		reg.Prefixes = append(reg.Prefixes, registration.Prefix{Prefix: p})
	}
	put(t, r, reg, 1000)
	put(t, r, nodeAt("b", "192.0.2.2"), 1000)
	r.close()
	content, err := os.ReadFile(whole) // #nosec G304 -- a test
	if err != nil {
		t.Fatal(err)
	}

	damage := map[string]func([]byte) []byte{
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
	}
	for name, f := range damage {
		path := filepath.Join(t.TempDir(), "map.db")
		if err := os.WriteFile(path, f(append([]byte(nil), content...)), 0o600); err != nil {
			t.Fatal(err)
		}
		r := restored(t, path)
		if n := len(r.state().records); n != 0 {
			t.Errorf("%s: Expected an empty map, got %d nodes", name, n)
		}
		put(t, r, nodeAt("c", "192.0.2.3"), 1000)
		r.close()
		aside, err := filepath.Glob(path + ".damaged-*")
		if err != nil || len(aside) != 1 {
			t.Errorf("%s: Expected the file to be set aside, got %v", name, aside)
		}
		again := restored(t, path)
		if n := len(again.state().records); n != 1 {
			t.Errorf("%s: Expected a store that works, got %d nodes", name, n)
		}
		again.close()
	}
}

// What was acknowledged is there after the process was killed.
func TestStoreKilled(t *testing.T) {
	const env = "DNSB_TEST_STORE"
	if path := os.Getenv(env); path != "" {
		r := restored(t, path)
		mark := r.state().marks
		for serial := r.marks["a"] + 1; ; serial++ {
			put(t, r, nodeAt("a", "192.0.2.1", fmt.Sprintf("10.%d.%d.0/24", serial/256%256, serial%256)), serial)
			fmt.Println("acknowledged", serial, mark)
		}
	}
	path := filepath.Join(t.TempDir(), "map.db")
	acknowledged := uint64(0)
	for range 5 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestStoreKilled$") // #nosec G204 -- this test
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
			var marks int
			if _, err := fmt.Sscan(strings.TrimPrefix(lines.Text(), "acknowledged"), &acknowledged, &marks); err != nil {
				t.Fatalf("Expected a serial, got %q", lines.Text())
			}
			if n++; n == stop {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait()

		r := restored(t, path)
		st := r.state()
		rec := st.records["a"]
		if rec == nil || rec.serial < acknowledged || rec.serial > acknowledged+1 {
			t.Fatalf("Expected serial %d or the next, got %+v", acknowledged, rec)
		}
		if want := fmt.Sprintf("10.%d.%d.0/24", rec.serial/256%256, rec.serial%256); len(rec.Prefixes) != 1 || rec.Prefixes[0].String() != want {
			t.Errorf("Expected %s with serial %d, got %v", want, rec.serial, rec.Prefixes)
		}
		r.close()
		if aside, _ := filepath.Glob(path + ".damaged-*"); len(aside) > 0 {
			t.Fatalf("Expected an undamaged file, got %v", aside)
		}
	}
}

// A registration that cannot be stored is not done.
func TestStoreFails(t *testing.T) {
	r := restored(t, filepath.Join(t.TempDir(), "map.db"))
	put(t, r, nodeAt("a", "192.0.2.1"), 1000)
	if err := r.store.close(); err != nil {
		t.Fatal(err)
	}
	defer r.close()
	for _, reg := range []*registration.Registration{nodeAt("a", "192.0.2.7"), nodeAt("b", "192.0.2.2"), {Zone: testZone, Node: "a"}} {
		reg.Serial = 2000
		if result, err := r.apply(reg, time.Hour); result != failed || err == nil {
			t.Errorf("Expected a failure, got %s, %v", result, err)
		}
	}
	st := r.state()
	if len(st.records) != 1 || st.records["a"].Addresses[0].String() != "192.0.2.1" || r.marks["a"] != 1000 {
		t.Errorf("Expected what was stored to stay, got %v", st.records)
	}
}
