package test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// vulnerability says that all versions of a module have one, in the format of
// https://go.dev/doc/security/vuln/database.
var vulnerability = map[string]string{
	"index/db.json":      `{"modified":"2026-01-01T00:00:00Z"}`,
	"index/modules.json": `[{"path":"github.com/miekg/dns","vulns":[{"id":"GO-2026-0001","modified":"2026-01-01T00:00:00Z"}]}]`,
	"ID/GO-2026-0001.json": `{
		"schema_version": "1.3.1", "id": "GO-2026-0001", "modified": "2026-01-01T00:00:00Z",
		"database_specific": {"url": "https://example.org/GO-2026-0001"},
		"affected": [{
			"package": {"name": "github.com/miekg/dns", "ecosystem": "Go"},
			"ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}]}],
			"ecosystem_specific": {"imports": [{"path": "github.com/miekg/dns"}]}
		}]
	}`,
}

var noVulnerability = map[string]string{
	"index/db.json":      `{"modified":"2026-01-01T00:00:00Z"}`,
	"index/modules.json": `[]`,
}

// TestVulnerabilityCheck runs the check of CI on one package that calls
// github.com/miekg/dns.
func TestVulnerabilityCheck(t *testing.T) {
	tests := []struct {
		name   string
		files  map[string]string // of the database; nil: unreachable
		status int
		want   string
	}{
		{"no vulnerability", noVulnerability, 0, "No vulnerabilities found."},
		{"a vulnerability", vulnerability, 3, "GO-2026-0001"},
		{"no database", nil, 0, "NOT CHECKED"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			cmd := exec.Command(filepath.Join(root, ".ci/vulncheck"), "./internal/dnsmsg")
			db := "http://127.0.0.1:1" // nobody listens
			if tc.files != nil {
				db = "file://" + writeFiles(t, tc.files)
			}
			cmd.Env = append(os.Environ(), "VULNDB="+db)
			out, err := cmd.CombinedOutput()
			if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if got := cmd.ProcessState.ExitCode(); got != tc.status || !strings.Contains(string(out), tc.want) {
				t.Errorf("Expected status %d and %q, got status %d:\n%s", tc.status, tc.want, got, out)
			}
		})
	}
}

// writeFiles returns a new directory with files.
func writeFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
