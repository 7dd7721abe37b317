package boltstore

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/coredns-dnslb/coredns-dnslb/internal/logtest"
	"github.com/coredns-dnslb/coredns-dnslb/internal/registration/registrationtest"
)

// TestLostFileIsWrittenAgain checks that a file that is lost is written again
// without another registration, and as soon as that is possible.
func TestLostFileIsWrittenAgain(t *testing.T) {
	for name, tc := range map[string]struct {
		lose, mend func(path string) error
		want       []string
	}{
		"removed": {lose: os.Remove, want: []string{"Lost store"}},
		"replaced": {
			lose: func(path string) error {
				return errors.Join(os.WriteFile(path+".new", []byte("other"), 0o600), os.Rename(path+".new", path))
			},
			want: []string{"Set aside damaged store"},
		},
		"directory removed": {
			lose: func(path string) error { return os.RemoveAll(filepath.Dir(path)) },
			mend: func(path string) error { return os.Mkdir(filepath.Dir(path), 0o700) },
			want: []string{"Lost store", "Failed to write store", "Recovered: store"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := logtest.Capture(t)
			path := filepath.Join(t.TempDir(), "store", "map.db")
			if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				r := open(t, path)
				defer r.Close()
				register(t, r, registrationtest.Node("a", "192.0.2.1"), 1000)
				register(t, r, registrationtest.Node("b", "192.0.2.2"), 1000)
				replaced := testutil.ToFloat64(replacedCount.WithLabelValues(testZone))
				time.Sleep(10 * checkInterval)
				synctest.Wait()
				l.Lines()
				if err := tc.lose(path); err != nil {
					t.Fatal(err)
				}
				time.Sleep(3 * checkInterval)
				synctest.Wait()
				if tc.mend != nil {
					if err := tc.mend(path); err != nil {
						t.Fatal(err)
					}
					time.Sleep(checkInterval)
				}
				synctest.Wait()
				held, err := Location(path).Read(testZone)
				entries := held.Entries
				if err != nil || len(entries) != 2 {
					t.Errorf("Expected both nodes in the file, got %v: %v", entries, err)
				}
				if n := testutil.ToFloat64(replacedCount.WithLabelValues(testZone)) - replaced; n != 1 {
					t.Errorf("Expected the loss to be counted once, got %v", n)
				}
				lines := l.Lines()
				if len(lines) != len(tc.want) {
					t.Fatalf("Expected %q, got %q", tc.want, lines)
				}
				for i, want := range tc.want {
					if !strings.Contains(lines[i], want) {
						t.Errorf("Expected %q, got %q", want, lines[i])
					}
				}
				register(t, r, registrationtest.Node("c", "192.0.2.3"), 1000)
				time.Sleep(2 * checkInterval)
				synctest.Wait()
				if aside, _ := filepath.Glob(path + ".damaged-*"); len(aside) > 1 {
					t.Errorf("Expected nothing else to be set aside, got %v", aside)
				}
			})
		})
	}
}
