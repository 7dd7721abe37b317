//go:build unix

package inputfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestReadRefusesWhatIsNotRegular(t *testing.T) {
	dir := t.TempDir()
	pipe, link, dangling := filepath.Join(dir, "pipe"), filepath.Join(dir, "link"), filepath.Join(dir, "dangling")
	if err := errors.Join(syscall.Mkfifo(pipe, 0o600), os.Symlink(pipe, link), os.Symlink("none", dangling)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		pipe: "expected a regular file", link: "expected a regular file", dir: "expected a regular file", "/dev/zero": "expected a regular file",
		dangling: "no such file",
	} {
		content, err := Read(path)
		if err == nil || len(content) > 0 || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), want) {
			t.Errorf("Expected %q for %s, got %q: %v", want, path, content, err)
		}
	}
	file := filepath.Join(dir, "file")
	if err := errors.Join(os.WriteFile(file, []byte(strings.Repeat("x", 3<<20)), 0o600), os.Remove(link), os.Symlink(file, link)); err != nil {
		t.Fatal(err)
	}
	if content, err := Read(link); err != nil || len(content) != 3<<20 {
		t.Errorf("Expected the whole file at a symbolic link, got %d bytes: %v", len(content), err)
	}
}

func TestOpenFileRefusesWhatIsNotRegular(t *testing.T) {
	dir := t.TempDir()
	pipe, file := filepath.Join(dir, "pipe"), filepath.Join(dir, "file")
	if err := errors.Join(syscall.Mkfifo(pipe, 0o600), os.WriteFile(file, []byte("old"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, dir, os.DevNull} {
		for _, flag := range []int{os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_CREATE} {
			if f, err := OpenFile(path, flag, 0o600); err == nil || f != nil || !strings.Contains(err.Error(), "expected a regular file") {
				t.Errorf("Expected %s to be refused, got %v", path, err)
			}
		}
		if err := CheckOutput(path); err == nil || !strings.Contains(err.Error(), "expected a regular file") {
			t.Errorf("Expected %s to be refused, got %v", path, err)
		}
	}
	for _, path := range []string{file, filepath.Join(dir, "none")} {
		if err := CheckOutput(path); err != nil {
			t.Errorf("Expected %s to be writable, got %v", path, err)
		}
	}
	if err := CheckOutput(filepath.Join(dir, "none", "file")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Expected an error for a missing directory, got %v", err)
	}
	if _, err := OpenFile(filepath.Join(dir, "none"), os.O_RDWR, 0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Expected an error for a missing file, got %v", err)
	}
	if content, err := Read(file); err != nil || string(content) != "old" {
		t.Errorf("Expected the file to be unchanged, got %q: %v", content, err)
	}
	f, err := OpenFile(filepath.Join(dir, "new"), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("Expected a new file with its mode, got %v: %v", info, err)
	}
}

func TestSilentFileSystem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		var calls atomic.Int32
		call := func(func()) (int, error) { calls.Add(1); <-hang; return 7, nil }
		expect := func(after time.Duration) {
			t.Helper()
			start := time.Now()
			if _, err := watched("read", "map", call); !errors.Is(err, errSilent) || time.Since(start) != after {
				t.Errorf("Expected an error after %v, got %v after %v", after, err, time.Since(start))
			}
		}
		expect(Timeout)
		expect(0) // without another call
		if n := calls.Load(); n != 1 {
			t.Errorf("Expected one call that hangs, got %d", n)
		}
		close(hang)
		synctest.Wait()
		if n, err := watched("read", "map", call); n != 7 || err != nil {
			t.Errorf("Expected the file system to answer again, got %d: %v", n, err)
		}
		slow := func(progress func()) (int, error) {
			for range 10 {
				time.Sleep(Timeout - time.Second)
				progress()
			}
			return 8, nil
		}
		if n, err := watched("read", "map", slow); n != 8 || err != nil {
			t.Errorf("Expected a slow file to be read, got %d: %v", n, err)
		}
	})
}
