package dnslb

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestWatchedFile checks that a file is read once for each change, and not while
// it is being written.
func TestWatchedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	write := func(text string) func() error {
		return func() error { return os.WriteFile(path, []byte(text), 0o600) }
	}
	none := func() error { return nil }
	steps := []struct {
		name           string
		do             func() error
		changed, waits bool
	}{
		{"not there", none, true, false},
		{"still not there", none, false, false},
		{"emptied", write(""), false, true},
		{"half written", write("a"), false, true},
		{"written", write("ab"), false, true},
		{"settled", none, true, false},
		{"the same", none, false, false},
		{"longer", write("abc"), false, true},
		{"settled again", none, true, false},
		{"another mode", func() error { return os.Chmod(path, 0o640) }, false, true},
		{"settled with it", none, true, false},
		{"another mode for a moment", func() error { return os.Chmod(path, 0o600) }, false, true},
		{"the mode of before", func() error { return os.Chmod(path, 0o640) }, false, false},
		{"another of the same age and size", func() error {
			was, err := os.Stat(path)
			if err != nil {
				return err
			}
			if err := os.WriteFile(path+".new", []byte("xyz"), 0o600); err != nil {
				return err
			}
			if err := errors.Join(os.Chmod(path+".new", 0o640), os.Chtimes(path+".new", was.ModTime(), was.ModTime())); err != nil {
				return err
			}
			return os.Rename(path+".new", path)
		}, false, true},
		{"settled as another", none, true, false},
		{"removed", func() error { return os.Remove(path) }, false, true},
		{"not there again", none, true, false},
	}
	f := watchedFile{path: path}
	for _, step := range steps {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if changed, waits := f.changed(), f.settling(); changed != step.changed || waits != step.waits {
			t.Errorf("%s: expected changed %t and settling %t, got %t and %t", step.name, step.changed, step.waits, changed, waits)
		}
	}
	if f := (watchedFile{}); f.changed() || f.settling() {
		t.Error("Expected no change of no file")
	}
}
