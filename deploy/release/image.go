package main

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// imageUser is the user and group in the image, which every other system leaves to
// images, too.
const imageUser = 65532

// image writes an image for all architectures, as a tar file in the OCI layout.
// It has the program, its licence and an empty state directory. The layout has one
// index, which has an image for each architecture: Skopeo and Podman take one
// image from a layout.
func (r *release) image() error {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, arch := range architectures {
		img, err := r.imageOf(arch)
		if err != nil {
			return fmt.Errorf("make the image for %s: %w", arch, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: img,
			Descriptor: v1.Descriptor{
				Platform: &v1.Platform{OS: "linux", Architecture: arch},
			},
		})
	}
	dir, err := os.MkdirTemp("", name)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path, err := layout.Write(dir, mutate.IndexMediaType(empty.Index, types.OCIImageIndex))
	if err != nil {
		return fmt.Errorf("write the image: %w", err)
	}
	tag := strings.ReplaceAll(r.version, "+", "_") // which a tag cannot have
	reference := map[string]string{"org.opencontainers.image.ref.name": name + ":" + tag}
	if err := path.AppendIndex(index, layout.WithAnnotations(reference)); err != nil {
		return fmt.Errorf("write the image: %w", err)
	}
	return r.archive(dir, filepath.Join(r.out, fmt.Sprintf("%s_%s_oci.tar", name, r.version)))
}

func (r *release) imageOf(arch string) (v1.Image, error) {
	files, err := r.layer(arch)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files)), nil },
		tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if img, err = mutate.AppendLayers(img, layer); err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", arch
	config.Created = v1.Time{Time: r.time}
	config.Config = v1.Config{
		User:         fmt.Sprintf("%d:%d", imageUser, imageUser),
		Entrypoint:   []string{"/" + name},
		Cmd:          []string{"-conf", "Corefile"},
		WorkingDir:   "/etc/" + name,
		ExposedPorts: map[string]struct{}{"53/udp": {}, "53/tcp": {}},
		Labels: map[string]string{
			"org.opencontainers.image.title":    name,
			"org.opencontainers.image.version":  r.version,
			"org.opencontainers.image.licenses": "Apache-2.0",
		},
	}
	return mutate.ConfigFile(img, config)
}

// layer returns the files of an image. Only the program is executable, and only
// the state directory can be written.
func (r *release) layer(arch string) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, dir := range []string{"etc/", "etc/" + name + "/", "var/", "var/lib/"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: r.time}); err != nil {
			return nil, err
		}
	}
	state := &tar.Header{Typeflag: tar.TypeDir, Name: "var/lib/" + name + "/", Mode: 0o700, Uid: imageUser, Gid: imageUser, ModTime: r.time}
	if err := w.WriteHeader(state); err != nil {
		return nil, err
	}
	program := tar.Header{Name: name, Mode: 0o755, PAXRecords: map[string]string{"SCHILY.xattr.security.capability": bindService()}}
	if err := addFile(w, r.program(arch), program, r.time); err != nil {
		return nil, err
	}
	if err := addFile(w, filepath.Join(r.root, "LICENSE"), tar.Header{Name: "LICENSE", Mode: 0o644}, r.time); err != nil {
		return nil, err
	}
	err := w.Close()
	return buf.Bytes(), err
}

// bindService returns the extended attribute of a file whose process has
// CAP_NET_BIND_SERVICE, whoever its user is: struct vfs_cap_data of Linux, in
// version 2, with one permitted capability that is effective.
func bindService() string {
	const (
		revision2, effective = 0x02000000, 1
		netBindService       = 10
	)
	data := binary.LittleEndian.AppendUint32(nil, revision2|effective)
	data = binary.LittleEndian.AppendUint32(data, 1<<netBindService)
	return string(append(data, make([]byte, 12)...)) // inheritable: none; all above 31: none
}

// archive writes the files of a directory to a tar file.
func (r *release) archive(dir, path string) error {
	f, err := os.Create(path) // #nosec G304 -- of this program
	if err != nil {
		return err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error { // in lexical order
		if err != nil || entry.IsDir() {
			return err
		}
		relative, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		return addFile(w, path, tar.Header{Name: filepath.ToSlash(relative), Mode: 0o644}, r.time)
	})
	if err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return f.Close()
}

func addFile(w *tar.Writer, path string, header tar.Header, modified time.Time) error {
	content, err := os.ReadFile(path) // #nosec G304 -- of this program
	if err != nil {
		return err
	}
	header.Typeflag, header.Size, header.ModTime = tar.TypeReg, int64(len(content)), modified
	if err := w.WriteHeader(&header); err != nil {
		return err
	}
	_, err = w.Write(content)
	return err
}
