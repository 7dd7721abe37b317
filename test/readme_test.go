package test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

var corefileBlock = regexp.MustCompile("(?ms)^~~~ corefile\n(.*?)^~~~$")

// TestReadmeCorefilesStart starts the program with each Corefile in a README.
func TestReadmeCorefilesStart(t *testing.T) {
	readmes, err := filepath.Glob(filepath.Join(root, "plugin", "*", "README.md"))
	if err != nil || len(readmes) != 3 {
		t.Fatalf("Expected a README for each of the three plugins, got %v, %v", readmes, err)
	}
	for _, readme := range append(readmes, filepath.Join(root, "README.md")) {
		text, err := os.ReadFile(readme)
		if err != nil {
			t.Fatal(err)
		}
		blocks := corefileBlock.FindAllSubmatch(text, -1)
		if len(blocks) == 0 {
			t.Errorf("%s: Expected an example", readme)
		}
		for _, block := range blocks {
			path := filepath.Join(t.TempDir(), "Corefile")
			if err := os.WriteFile(path, block[1], 0o600); err != nil {
				t.Fatal(err)
			}
			if out, status := run(t, "-validate", "-conf", path); status != 0 {
				t.Errorf("%s: %s\n%s", readme, out, block[1])
				continue
			}
			// -p is the port of server blocks that have none in their keys.
			start(t, "-conf", path, "-p", freePort(t)).stop()
		}
	}
}
