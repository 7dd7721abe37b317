// Command release makes all files of a release: static programs, a Debian package
// for each architecture, an OCI image for all of them, lists of components, and
// checksums. The same commit gives the same files.
package main

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// name is the name of the program, of its package and of its image.
const name = "coredns-dnslb"

var architectures = []string{"amd64", "arm64"}

// release is what all files have in common.
type release struct {
	root    string // of the repository
	out     string
	version string // by Semantic Versioning, without v
	time    time.Time
}

func main() {
	root := flag.String("root", "..", "root of the repository")
	out := flag.String("out", "../dist", "directory for the files, which is replaced")
	version := flag.String("version", "", "version, such as 1.2.3; by default that of the tag, or made from the commit")
	flag.Parse()
	if err := run(*root, *out, strings.TrimPrefix(*version, "v")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(root, out, version string) error {
	r, err := newRelease(root, out, version)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(r.out); err != nil {
		return err
	}
	if err := os.MkdirAll(r.out, 0o755); err != nil { // #nosec G301 -- for all to read
		return err
	}
	for _, arch := range architectures {
		if err := r.build(arch); err != nil {
			return err
		}
		if err := r.components(arch); err != nil {
			return err
		}
	}
	if err := r.packages(); err != nil {
		return err
	}
	if err := r.image(); err != nil {
		return err
	}
	return r.checksums()
}

// newRelease finds out the version and the time of the commit.
func newRelease(root, out, version string) (*release, error) {
	r := &release{version: version}
	var err error
	if r.root, err = filepath.Abs(root); err != nil {
		return nil, err
	}
	if r.out, err = filepath.Abs(out); err != nil {
		return nil, err
	}
	seconds, err := r.git("show", "--no-patch", "--format=%ct", "HEAD")
	if err != nil {
		return nil, err
	}
	var unix int64
	if _, err := fmt.Sscan(seconds, &unix); err != nil {
		return nil, fmt.Errorf("read the time of the commit: %w", err)
	}
	r.time = time.Unix(unix, 0).UTC()
	if r.version == "" {
		r.version, err = r.commitVersion()
	}
	return r, err
}

// commitVersion returns the version of the tag, or one that sorts before the first
// release, as the pseudo-versions of Go modules do.
func (r *release) commitVersion() (string, error) {
	commit, err := r.git("rev-parse", "--short=12", "HEAD")
	if err != nil {
		return "", err
	}
	version := fmt.Sprintf("0.0.0-%s-%s", r.time.Format("20060102150405"), commit)
	tags, err := r.git("tag", "--points-at", "HEAD", "--list", "v[0-9]*")
	if err != nil {
		return "", err
	}
	if tag, _, _ := strings.Cut(tags, "\n"); tag != "" {
		version = strings.TrimPrefix(tag, "v")
	}
	changed, err := r.git("status", "--porcelain")
	if changed != "" {
		version += "+modified"
	}
	return version, err
}

func (r *release) git(args ...string) (string, error) {
	out, err := r.command("git", args...).Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

func (r *release) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...) // #nosec G204 -- of this program
	cmd.Dir, cmd.Stderr = r.root, os.Stderr
	return cmd
}

// program is the path of the program for an architecture.
func (r *release) program(arch string) string {
	return filepath.Join(r.out, fmt.Sprintf("%s_%s_linux_%s", name, r.version, arch))
}

// build makes the program, which needs no library of the system.
func (r *release) build(arch string) error {
	cmd := r.command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.release="+r.version, "-o", r.program(arch), ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=")
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build for %s: %w", arch, err)
	}
	return nil
}

// components lists the modules in the program, in the form of CycloneDX.
func (r *release) components(arch string) error {
	cmd := r.command("go", "tool", "cyclonedx-gomod", "bin", "-json", "-std", "-noserial", "-notimestamp",
		"-version", "v"+r.version, "-output", r.program(arch)+".cdx.json", r.program(arch))
	cmd.Dir = filepath.Join(r.root, "deploy")
	var messages bytes.Buffer
	cmd.Stderr = &messages
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("list the components for %s: %w\n%s", arch, err, messages.String())
	}
	return nil
}

// checksums writes the file that 'sha256sum --check' reads.
func (r *release) checksums() error {
	paths, err := filepath.Glob(filepath.Join(r.out, "*"))
	if err != nil {
		return err
	}
	var sums bytes.Buffer
	for _, path := range paths {
		f, err := os.Open(path) // #nosec G304 -- of this program
		if err != nil {
			return err
		}
		hash := sha256.New()
		_, err = io.Copy(hash, f)
		_ = f.Close()
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", hash.Sum(nil), filepath.Base(path))
	}
	return os.WriteFile(filepath.Join(r.out, "SHA256SUMS"), sums.Bytes(), 0o644) // #nosec G306 -- for all to read
}
