package operator

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestEdit(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "admin")
	content := func() string {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if lines, err := Lines(path); err != nil || len(lines) != 0 {
		t.Errorf("Expected a file that does not exist to have no lines, got %q, %v", lines, err)
	}
	if removed, err := RemoveLines(path, func([]string) bool { return true }); err != nil || len(removed) > 0 {
		t.Errorf("Expected nothing to remove, got %q, %v", removed, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("Expected no file where nothing changes, got %v, %v", entries, err)
	}
	if err := AddLine(path, "drain fra until x reason y"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("# by hand\n\ndrain fra until x reason y\ndown iad until x reason z # comment"), 0o640); err != nil { // #nosec G306 -- a mode to keep
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o640); err != nil { // #nosec G302 -- a mode to keep
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := AddLine(link, "up nrt until x reason y"); err != nil {
		t.Fatal(err)
	}
	if want := "# by hand\n\ndrain fra until x reason y\ndown iad until x reason z # comment\nup nrt until x reason y\n"; content() != want {
		t.Errorf("Expected %q, got %q", want, content())
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("Expected the mode to stay, got %v, %v", info.Mode(), err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("Expected the link to stay, got %v, %v", info.Mode(), err)
	}
	lines, err := Lines(path)
	if want := []string{"drain fra until x reason y", "down iad until x reason z", "up nrt until x reason y"}; err != nil || !slices.Equal(lines, want) {
		t.Errorf("Expected %q, got %q, %v", want, lines, err)
	}
	removed, err := RemoveLines(path, func(fields []string) bool { return len(fields) > 1 && fields[1] == "iad" })
	if err != nil || !slices.Equal(removed, []string{"down iad until x reason z # comment"}) {
		t.Errorf("Expected one line to be removed, got %q, %v", removed, err)
	}
	if want := "# by hand\n\ndrain fra until x reason y\nup nrt until x reason y\n"; content() != want {
		t.Errorf("Expected %q, got %q", want, content())
	}
}

// TestEditsDoNotLoseLines lets many operators edit at the same time: a line that was
// written is there, and the others have an error.
func TestEditsDoNotLoseLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin")
	var mu sync.Mutex
	var wg sync.WaitGroup
	written := 0
	for i := range 50 {
		wg.Go(func() {
			err := AddLine(path, fmt.Sprint("line ", i))
			if err != nil && !strings.Contains(err.Error(), "another command is editing the file now") {
				t.Errorf("Expected the line to be written or to be refused, got: %v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				written++
			}
		})
	}
	wg.Wait()
	lines, err := Lines(path)
	if err != nil || len(lines) != written || written == 0 {
		t.Errorf("Expected %d lines, got %d, %v", written, len(lines), err)
	}
}

func TestParseServer(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1": "192.0.2.1:53", "192.0.2.1:1053": "192.0.2.1:1053", "2001:db8::1": "[2001:db8::1]:53", "[2001:db8::1]:1053": "[2001:db8::1]:1053", "ns.example.org": "",
	} {
		got, err := ParseServer(in)
		if want == "" && err == nil || want != "" && (err != nil || got.String() != want) {
			t.Errorf("%s: Expected %q, got %s, %v", in, want, got, err)
		}
	}
}
