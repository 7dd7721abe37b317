package docs

import (
	"go/build"
	"io/fs"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	// packageRow is a row of the table of packages: a folder in bold, or packages in it.
	packageRow = regexp.MustCompile("(?m)^\\| (?:\\*\\*([a-z/]+)/\\*\\*|(`[a-z/]+`(?:, `[a-z/]+`)*)) \\|")
	goFile     = regexp.MustCompile("`([a-z/]+_?[a-z]*\\.go)`")
)

// TestArchitectureHasAllPackages checks that the table has each package, but for helpers
// of tests, and that a package imports only those above it or before it in its row.
func TestArchitectureHasAllPackages(t *testing.T) {
	var folder string
	var listed []string
	for _, row := range packageRow.FindAllStringSubmatch(read(t, "architecture.md"), -1) {
		if row[1] != "" {
			folder = row[1]
			continue
		}
		for name := range strings.SplitSeq(row[2], ", ") {
			name = strings.Trim(name, "`")
			if path.Base(folder) == name { // the plugin itself
				listed = append(listed, folder)
				continue
			}
			listed = append(listed, path.Join(folder, name))
		}
	}
	found := 0
	for _, top := range []string{"internal", "plugin"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(dir string, e fs.DirEntry, err error) error {
			if err != nil || !e.IsDir() {
				return err
			}
			name := filepath.ToSlash(strings.TrimPrefix(dir, root+string(filepath.Separator)))
			sources, err := build.ImportDir(dir, 0)
			if _, none := err.(*build.NoGoError); none || strings.HasSuffix(name, "test") || strings.HasPrefix(path.Base(name), "test") {
				return nil
			} else if err != nil {
				return err
			}
			found++
			place := slices.Index(listed, name)
			if place < 0 {
				t.Errorf("Expected %s in the table of packages", name)
				return nil
			}
			for _, imported := range sources.Imports {
				if other, ok := strings.CutPrefix(imported, module+"/"); ok && !slices.Contains(listed[:place], other) {
					t.Errorf("Expected %s below %s, which it imports", name, other)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if found != len(listed) {
		t.Errorf("Expected %d packages in the table, got %d: %q", found, len(listed), listed)
	}
}

// TestArchitectureNamesFiles checks that the files of the journeys exist.
func TestArchitectureNamesFiles(t *testing.T) {
	var files []string
	for _, top := range []string{"internal", "plugin"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(file string, _ fs.DirEntry, err error) error {
			files = append(files, filepath.ToSlash(file))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	named := goFile.FindAllStringSubmatch(read(t, "architecture.md"), -1)
	if len(named) < 50 {
		t.Errorf("Expected the journeys to name files, got %d", len(named))
	}
	for _, m := range named {
		if !slices.ContainsFunc(files, func(file string) bool { return strings.HasSuffix(file, "/"+m[1]) }) {
			t.Errorf("Expected no file %s, which does not exist", m[1])
		}
	}
}
