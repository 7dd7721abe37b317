package main

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// out is a release of version 0.9.0.
var out string

func TestMain(m *testing.M) { os.Exit(releaseAndRun(m)) }

func releaseAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", name)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	out = filepath.Join(dir, "dist")
	if err := run("../..", out, "0.9.0"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// need skips the test without root or these programs. In CI it fails.
func need(t *testing.T, programs ...string) {
	t.Helper()
	var err error
	if os.Geteuid() != 0 {
		err = errors.New("needs root")
	}
	for _, p := range programs {
		_, missing := exec.LookPath(p)
		err = errors.Join(err, missing)
	}
	if err == nil {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal(err)
	}
	t.Skip(err)
}

// TestReleaseIsReproducible makes the release again from a copy of the repository
// at another path, with another umask and time zone.
func TestReleaseIsReproducible(t *testing.T) {
	dir := t.TempDir()
	copied, again := filepath.Join(dir, "copy"), filepath.Join(dir, "dist")
	if err := os.CopyFS(copied, os.DirFS("../..")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TZ", "Asia/Tokyo")
	defer syscall.Umask(syscall.Umask(0o077))
	if err := run(copied, again, "0.9.0"); err != nil {
		t.Fatal(err)
	}
	want, got := sums(t, out), sums(t, again)
	if !bytes.Equal(want, got) {
		t.Errorf("Expected\n%s, got\n%s", want, got)
	}
	if files := bytes.Count(want, []byte("\n")); files != 7 {
		t.Errorf("Expected checksums of 7 files, got:\n%s", want)
	}
	cmd := exec.Command("sha256sum", "--check", "--strict", "SHA256SUMS")
	cmd.Dir = out
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("Expected the checksums to be right, got %v: %s", err, output)
	}
}

func sums(t *testing.T, dir string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestComponentsAreListed(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(out, name+"_0.9.0_linux_arm64.cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Metadata struct {
			Component struct{ Name, Version string }
		}
		Components []struct{ Name, Version, PURL string }
	}
	if err := json.Unmarshal(content, &list); err != nil {
		t.Fatal(err)
	}
	if c := list.Metadata.Component; !strings.HasSuffix(c.Name, "/"+name) || c.Version != "v0.9.0" {
		t.Errorf("Expected the list of this program, got %+v", c)
	}
	found := make(map[string]bool)
	for _, c := range list.Components {
		found[c.Name] = c.Version != "" && c.PURL != ""
	}
	for _, module := range []string{"github.com/coredns/coredns", "github.com/miekg/dns", "go.etcd.io/bbolt", "std"} {
		if !found[module] {
			t.Errorf("Expected %s with its version, got %v", module, found)
		}
	}
}

func TestProgramIsStatic(t *testing.T) {
	for _, arch := range architectures {
		program, err := elf.Open(filepath.Join(out, name+"_0.9.0_linux_"+arch))
		if err != nil {
			t.Fatal(err)
		}
		defer program.Close()
		if slices.ContainsFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
			t.Errorf("Expected a static program for %s", arch)
		}
	}
}

// TestManualPagesRender lets man complain.
func TestManualPagesRender(t *testing.T) {
	need(t, "man", "dpkg-deb")
	dir := t.TempDir()
	if output, err := exec.Command("dpkg-deb", "-x", filepath.Join(out, name+"_0.9.0_amd64.deb"), dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "usr/share/man/man?/*"))
	if err != nil || len(pages) != 4 {
		t.Fatalf("Expected 4 pages, got %v, %v", pages, err)
	}
	for _, page := range pages {
		cmd := exec.Command("man", "--warnings", "-l", page)
		cmd.Env = append(os.Environ(), "MANWIDTH=100", "LC_ALL=C.UTF-8")
		var complaints bytes.Buffer
		cmd.Stderr = &complaints
		text, err := cmd.Output()
		if err != nil || complaints.Len() > 0 {
			t.Errorf("%s: %v: %s", page, err, complaints.String())
		}
		for _, want := range []string{"NAME\n", "DESCRIPTION\n", "SEE ALSO\n"} {
			if !strings.Contains(strings.ToUpper(string(text)), want) {
				t.Errorf("%s: Expected %q, got\n%s", page, want, text)
			}
		}
		if strings.Contains(string(text), "](") {
			t.Errorf("%s: Expected no Markdown, got\n%s", page, text)
		}
	}
}

// TestLinksOfPackageLeadToFiles follows the links of the pages that the package
// installs, in it or to where the repository is published.
func TestLinksOfPackageLeadToFiles(t *testing.T) {
	need(t, "dpkg-deb")
	dir := t.TempDir()
	if output, err := exec.Command("dpkg-deb", "-x", filepath.Join(out, name+"_0.9.0_amd64.deb"), dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "usr/share/doc", name, "docs", "*.md"))
	if err != nil || len(pages) < 20 {
		t.Fatalf("Expected pages, got %v, %v", pages, err)
	}
	fence, inside, elsewhere := regexp.MustCompile("(?ms)^~~~.*?^~~~$"), 0, 0
	for _, page := range append(pages, filepath.Join(dir, "usr/share/doc", name, "NEWS.md")) {
		text, err := os.ReadFile(page) // #nosec G304 -- of this test
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\]\(([^)\s#]+)`).FindAllStringSubmatch(fence.ReplaceAllString(string(text), ""), -1) {
			target := filepath.Join(filepath.Dir(page), m[1])
			if commit, ok := strings.CutPrefix(m[1], published); ok {
				_, path, _ := strings.Cut(commit, "/")
				target = filepath.Join("../..", path)
				elsewhere++
			} else if strings.Contains(m[1], "://") {
				continue
			} else {
				inside++
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: Expected a file of the link %s, got %v", page, m[1], err)
			}
		}
	}
	if inside < 100 || elsewhere < 10 {
		t.Errorf("Expected links in the package and to the repository, got %d and %d", inside, elsewhere)
	}
}

// TestPackageOnMachine installs, runs, upgrades and removes the package on a machine
// with systemd.
func TestPackageOnMachine(t *testing.T) {
	need(t, "unshare", "dpkg", "systemd-analyze", "dbus-daemon", "adduser", "dig", "unbound", "ip")
	dir := t.TempDir()
	next := &release{root: mustAbs(t, "../.."), out: dir, version: "0.9.1"}
	if err := os.Link(filepath.Join(out, name+"_0.9.0_linux_amd64"), next.program("amd64")); err != nil {
		t.Fatal(err)
	}
	pages := t.TempDir()
	if err := errors.Join(next.manPages(pages), next.documents(pages), next.deb("amd64", pages)); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(out, name+"_0.9.0_amd64.deb"), filepath.Join(dir, name+"_0.9.0_amd64.deb")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--mount", "--net", "--uts", "--ipc", "--cgroup",
		mustAbs(t, "testdata/machine"), mustAbs(t, "testdata/package"), dir)
	output, err := cmd.CombinedOutput()
	if err != nil || !strings.HasSuffix(string(output), "\npassed\n") {
		t.Fatalf("Expected the script to pass, got %v:\n%s", err, output)
	}
	t.Logf("%s", output)
}

func mustAbs(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestImageRuns(t *testing.T) {
	need(t, "tar", "unshare", "setpriv", "chroot", "dig", "ip")
	dir := t.TempDir()
	unpack(t, dir, "-f", filepath.Join(out, name+"_0.9.0_oci.tar"))
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 {
		t.Fatalf("Expected one index, got %v, %v", manifest, err)
	}
	if index, err = index.ImageIndex(manifest.Manifests[0].Digest); err != nil {
		t.Fatal(err)
	}
	if manifest, err = index.IndexManifest(); err != nil {
		t.Fatal(err)
	}
	platforms := make(map[string]v1.Image)
	for _, m := range manifest.Manifests {
		if platforms[m.Platform.String()], err = index.Image(m.Digest); err != nil {
			t.Fatal(err)
		}
	}
	img := platforms["linux/amd64"]
	if len(platforms) != 2 || img == nil || platforms["linux/arm64"] == nil {
		t.Fatalf("Expected an image for amd64 and arm64, got %v", platforms)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Config.User != "65532:65532" || config.Config.Entrypoint[0] != "/"+name || config.Architecture != "amd64" {
		t.Errorf("Expected an image without root, got %+v", config)
	}
	files := mutate.Extract(img)
	defer files.Close()
	root := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(root, 0o755); err != nil { // #nosec G301 -- for the user of the image
		t.Fatal(err)
	}
	unpackFrom(t, files, root)
	output, err := exec.Command("unshare", "--net", "testdata/image", root).CombinedOutput()
	if err != nil || !strings.HasSuffix(string(output), "passed\n") {
		t.Errorf("Expected the image to serve, got %v:\n%s", err, output)
	}
}

// TestImageIsCopied copies the image of both architectures as to a registry.
func TestImageIsCopied(t *testing.T) {
	need(t, "skopeo")
	archive, dir := "oci-archive:"+filepath.Join(out, name+"_0.9.0_oci.tar"), t.TempDir()
	if output, err := exec.Command("skopeo", "--insecure-policy", "copy", "--all", archive, "dir:"+dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	for _, arch := range architectures {
		output, err := exec.Command("skopeo", "--override-os=linux", "--override-arch="+arch, "inspect", "--config", "dir:"+dir).CombinedOutput()
		if err != nil || !strings.Contains(string(output), `"architecture": "`+arch+`"`) {
			t.Errorf("Expected the image for %s, got %v: %s", arch, err, output)
		}
	}
}

// TestArm64Serves runs the program by an emulator, which lacks what the fast path
// needs: the plugin chain answers.
func TestArm64Serves(t *testing.T) {
	need(t, "unshare", "qemu-aarch64", "dig", "ip")
	output, err := exec.Command("unshare", "--net", mustAbs(t, "testdata/arm64"), filepath.Join(out, name+"_0.9.0_linux_arm64")).CombinedOutput()
	if err != nil || !strings.HasSuffix(string(output), "\npassed\n") {
		t.Errorf("Expected the script to pass, got %v:\n%s", err, output)
	}
}

func unpack(t *testing.T, dir string, args ...string) {
	t.Helper()
	if output, err := exec.Command("tar", append([]string{"-C", dir, "-x"}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
}

func unpackFrom(t *testing.T, files io.Reader, dir string) {
	t.Helper()
	cmd := exec.Command("tar", "-C", dir, "-x", "--numeric-owner", "--xattrs", "--xattrs-include=*")
	cmd.Stdin = files
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
}
