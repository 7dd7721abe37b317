package filewatch

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clog "github.com/coredns/coredns/plugin/pkg/log"
)

func init() { clog.Discard() }

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// looks are the results of looking at a Set so many times.
func looks(s *Set, n int) (changed []bool) {
	for range n {
		changed = append(changed, s.Changed())
	}
	return changed
}

func expect(t *testing.T, what string, got []bool, want ...bool) {
	t.Helper()
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("Expected %v %s, got %v", want, what, got)
			return
		}
	}
}

func TestFileIsReadWhenItHasSettled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	s := New(path)
	expect(t, "for a file that does not exist", looks(s, 2), true, false)

	write(t, path, "half")
	expect(t, "at the first look at a change", looks(s, 1), false)
	if !s.Settling() || s.Wait() != SettleTime {
		t.Error("Expected a file that changed to be looked at soon")
	}
	write(t, path, "half and the rest")
	expect(t, "for a file that is still being written", looks(s, 3), false, true, false)
	if s.Settling() || s.Wait() != Interval {
		t.Error("Expected a file that was read to be looked at in a while")
	}

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	expect(t, "for a file that was removed", looks(s, 3), false, true, false)
}

func TestChangesThatAreSeen(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, path string){
		"age": func(t *testing.T, path string) {
			if err := os.Chtimes(path, time.Time{}, time.Unix(1, 0)); err != nil {
				t.Fatal(err)
			}
		},
		"mode": func(t *testing.T, path string) {
			if err := os.Chmod(path, 0o644); err != nil { // #nosec G302 -- the change
				t.Fatal(err)
			}
		},
		"another file of the same age and size": func(t *testing.T, path string) {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			write(t, path+".new", "TEXT")
			if err := os.Chtimes(path+".new", info.ModTime(), info.ModTime()); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path+".new", path); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			write(t, path, "text")
			s := New(path)
			expect(t, "for a file that does not change", looks(s, 3), true, false, false)
			change(t, path)
			expect(t, "after a change", looks(s, 3), false, true, false)
		})
	}
}

func TestChangeThatIsUndone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	write(t, path, "text")
	s := New(path)
	expect(t, "at first", looks(s, 1), true)
	for _, tc := range []struct {
		mode     os.FileMode
		settling bool
	}{{0o640, true}, {0o600, false}} {
		if err := os.Chmod(path, tc.mode); err != nil {
			t.Fatal(err)
		}
		expect(t, "at the first look at a change", looks(s, 1), false)
		if s.Settling() != tc.settling {
			t.Errorf("Expected a file of mode %o to settle: %t", tc.mode, tc.settling)
		}
	}
}

func TestFilesAreReadTogether(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	write(t, a, "1")
	write(t, b, "1")
	s := New(a, b)
	expect(t, "at first", looks(s, 2), true, false)
	write(t, a, "12")
	expect(t, "after a change of one", looks(s, 1), false)
	write(t, b, "12")
	expect(t, "as long as one changes", looks(s, 3), false, true, false)
	if New().Changed() {
		t.Error("Expected no change without files")
	}
}

func TestLoaderKeepsPreviousValue(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	write(t, path, "first")
	var reports []error
	l := NewLoader("test file", func() (string, error) {
		b, err := os.ReadFile(path) // #nosec G304 -- of the test
		if err == nil && strings.Contains(string(b), "wrong") {
			err = errors.New("it is wrong")
		}
		return string(b), err
	}, clog.NewWithPlugin("test"), func(err error) { reports = append(reports, err) }, path)
	if err := l.Load(); err != nil || l.Value() != "first" || l.Failed() || len(reports) > 0 {
		t.Errorf("Expected the first version, got %q: %v", l.Value(), err)
	}
	write(t, path, "wrong one") // not as long as the first: the clock of a file system may be coarse
	if first, second := l.Poll(), l.Poll(); first || second || l.Value() != "first" || !l.Failed() || len(reports) != 1 || reports[0] == nil {
		t.Errorf("Expected the first version and an error, got %q, %v", l.Value(), reports)
	}
	write(t, path, "second")
	if l.Poll() || !l.Poll() || l.Value() != "second" || l.Failed() || len(reports) != 2 || reports[1] != nil {
		t.Errorf("Expected the second version, got %q, %v", l.Value(), reports)
	}
	if got := l.String(); got != `test file "`+path+`"` {
		t.Errorf("Expected the path, quoted, got %s", got)
	}
}
