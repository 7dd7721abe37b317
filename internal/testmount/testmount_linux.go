// Package testmount gives tests a small file system of their own, which they fill
// and make read-only.
package testmount

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// inside is set in the environment of a test that runs in its own mount namespace.
const inside = "TESTMOUNT_INSIDE"

// FileSystem is a tmpfs of 256 KiB.
type FileSystem struct {
	t   testing.TB
	Dir string
}

// Mount returns a new file system for the rest of the test, nil if the test is done:
// it ran in a process with a mount namespace of its own, so that nobody else sees the
// file system. Without the right to mount the test is skipped.
func Mount(t *testing.T) *FileSystem {
	t.Helper()
	if os.Getenv(inside) == "" {
		runInside(t)
		return nil
	}
	fs := &FileSystem{t, t.TempDir()}
	if err := syscall.Mount("tmpfs", fs.Dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(fs.Dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return fs
}

func runInside(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may mount a file system")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$") // #nosec G204 G702 -- this test
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // mounts are private
	out, err := cmd.CombinedOutput()
	if exit, ok := err.(*exec.ExitError); err != nil && (!ok || exit.ExitCode() < 0) {
		t.Skipf("no mount namespace: %v", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// Fill takes all space that is free.
func (fs *FileSystem) Fill() {
	fs.t.Helper()
	f, err := os.Create(fs.filler())
	if err != nil {
		fs.t.Fatal(err)
	}
	defer f.Close()
	for page := make([]byte, os.Getpagesize()); err == nil; {
		_, err = f.Write(page)
	}
}

// Free gives back what Fill took.
func (fs *FileSystem) Free() {
	fs.t.Helper()
	if err := os.Remove(fs.filler()); err != nil {
		fs.t.Fatal(err)
	}
}

func (fs *FileSystem) filler() string { return filepath.Join(fs.Dir, "filler") }

// SetReadOnly makes the file system read-only or not. The kernel refuses while a
// file is open for writing.
func (fs *FileSystem) SetReadOnly(readOnly bool) {
	fs.t.Helper()
	flags := uintptr(syscall.MS_REMOUNT)
	if readOnly {
		flags |= syscall.MS_RDONLY
	}
	if err := syscall.Mount("tmpfs", fs.Dir, "tmpfs", flags, ""); err != nil {
		fs.t.Fatal(err)
	}
}
