// Package docs tests that pages say what the code does.
package docs

import (
	"fmt"
	"go/ast"
	"go/build"
	"go/constant"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	module = "github.com/coredns-dnslb/coredns-dnslb"
	root   = ".."
)

// notLimits are constants with the name of a limit that bound no resource.
var notLimits = map[string]string{
	"fastpath.maxLabel":          "the length of a label (RFC 1035)",
	"fastpath.maxName":           "the length of a name (RFC 1035)",
	"fastpath.maxType":           "the types of data (RFC 6895)",
	"latencyprobe.maxStall":      "when a probe says nothing, see measuring.md",
	"latencyprobe.maxPauseShift": "when a failure of this machine is tried again",
	"nsec.maxName":               "the length of a name (RFC 1035)",
	"prober.maxClockDrift":       "which timestamps of the kernel count",
	"ranking.maxBudget":          "of the rule, see ranking.md",
	"ranking.maxGrace":           "of the rule, see ranking.md",
	"ranking.maxRegret":          "of the rule, see ranking.md",
	"registration.maxHeader":     "the length of the fields of a record",
	"registration.maxMessage":    "the length of a message over TCP (RFC 1035)",
	"latencyprobe.maxSavedAge":   "the same as maxSampleAge",
	"latencyprobe.maxHoldDown":   "of health, see measuring.md",
	"registrar.maxFirstDelay":    "spreads the start of nodes",
	"latencyprobe.maxFirstDelay": "spreads the first probes",
	"latencyprobe.maxFirstRound": "when the plugin is ready",
}

var (
	limitRow  = regexp.MustCompile("(?m)^\\|[^|\n]+\\|([^|\n]+)\\|[^|\n]+\\|[^|\n]+\\| ((?:`[a-z]+\\.\\w+`(?:, )?)+) \\|$")
	codeSpan  = regexp.MustCompile("`([a-z]+\\.\\w+)`")
	metricRef = regexp.MustCompile(`\bcoredns_\w+`)
	limitName = regexp.MustCompile(`^[mM]ax[A-Z]`)
)

// TestLimitsAreThoseOfTheCode checks that each constant of the table has the value
// that its row says, and that the table has all constants that are called so.
func TestLimitsAreThoseOfTheCode(t *testing.T) {
	text := read(t, "limits.md")
	constants := constantsOfProject(t)
	listed := make(map[string]bool)
	for _, row := range limitRow.FindAllStringSubmatch(text, -1) {
		for _, m := range codeSpan.FindAllStringSubmatch(row[2], -1) {
			name := m[1]
			listed[name] = true
			c, ok := constants[name]
			if !ok {
				t.Errorf("Expected no row for %s, which does not exist", name)
				continue
			}
			if forms := written(c); !slices.ContainsFunc(forms, func(form string) bool { return hasWord(row[1], form) }) {
				t.Errorf("%s: Expected one of %q in %q", name, forms, row[1])
			}
		}
	}
	if len(listed) < 50 {
		t.Errorf("Expected the table, got %d constants", len(listed))
	}
	for name := range constants {
		_, other := notLimits[name]
		if _, base, _ := strings.Cut(name, "."); limitName.MatchString(base) && listed[name] == other {
			t.Errorf("Expected %s either in docs/limits.md or in notLimits", name)
		}
	}
	for name := range notLimits {
		if constants[name] == nil {
			t.Errorf("Expected no exception for %s, which does not exist", name)
		}
	}
}

// TestLimitsNameMetrics checks that the metrics of the page are documented ones.
func TestLimitsNameMetrics(t *testing.T) {
	var readmes string
	for _, plugin := range []string{"dnsb", "dnslb", "latencyprobe"} {
		readmes += read(t, filepath.Join(root, "plugin", plugin, "README.md"))
	}
	names := metricRef.FindAllString(read(t, "limits.md"), -1)
	if len(names) == 0 {
		t.Error("Expected metrics")
	}
	for _, name := range names {
		if strings.HasPrefix(name, "coredns_dns_") { // of *prometheus*
			continue
		}
		if !hasWord(readmes, name) {
			t.Errorf("Expected %s in the README of a plugin", name)
		}
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// hasWord reports whether a text has a word that is not part of a longer number or
// name.
func hasWord(text, word string) bool {
	return regexp.MustCompile(`(^|[^\w.,])` + regexp.QuoteMeta(word) + `($|[^\w]|[.,]\D|[.,]$)`).MatchString(text)
}

// written returns the forms in which a page may have the value of a constant.
func written(c *types.Const) []string {
	n, exact := constant.Int64Val(constant.ToInt(c.Val()))
	if !exact {
		return []string{c.Val().String()}
	}
	if c.Type().String() == "time.Duration" {
		d := time.Duration(n).String() // such as 1h0m0s
		for _, zero := range []string{"m0s", "h0m"} {
			if strings.HasSuffix(d, zero) {
				d = strings.TrimSuffix(d, zero[1:])
			}
		}
		return []string{d}
	}
	digits := strconv.FormatInt(n, 10)
	grouped := digits
	for i := len(digits) - 3; i > 0; i -= 3 {
		grouped = grouped[:i] + "," + grouped[i:]
	}
	forms := []string{digits, grouped}
	for i, unit := range []string{"KiB", "MiB", "GiB"} {
		if size := int64(1) << (10 * (i + 1)); n >= size && n%size == 0 {
			forms = append(forms, fmt.Sprintf("%d %s", n/size, unit))
		}
	}
	return forms
}

// constantsOfProject returns the constants of all packages, by package and name.
func constantsOfProject(t *testing.T) map[string]*types.Const {
	t.Helper()
	l := &loader{fset: token.NewFileSet(), packages: make(map[string]*types.Package)}
	l.std = importer.ForCompiler(l.fset, "source", nil)
	constants := make(map[string]*types.Const)
	for _, top := range []string{"internal", "plugin"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(dir string, e fs.DirEntry, err error) error {
			if err != nil || !e.IsDir() || e.Name() == "testdata" {
				return err
			}
			rel, err := filepath.Rel(root, dir)
			if err != nil {
				return err
			}
			p, err := l.Import(path.Join(module, filepath.ToSlash(rel)))
			if err != nil {
				return err
			}
			for _, name := range p.Scope().Names() {
				c, ok := p.Scope().Lookup(name).(*types.Const)
				switch full := p.Name() + "." + name; {
				case ok && c.Val().Kind() != constant.Unknown:
					constants[full] = c
				case ok && limitName.MatchString(name):
					t.Errorf("Expected %s to be made of numbers and of constants of this module, so that its value is known to this test", full)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return constants
}

// loader type-checks the declarations of this module. It does without the
// packages of others, but for time: no bound needs them.
type loader struct {
	fset     *token.FileSet
	std      types.Importer
	packages map[string]*types.Package
}

// Import implements the types.Importer interface.
func (l *loader) Import(name string) (*types.Package, error) {
	if p := l.packages[name]; p != nil {
		return p, nil
	}
	if name == "time" {
		return l.std.Import(name)
	}
	p := types.NewPackage(name, path.Base(name))
	p.MarkComplete()
	l.packages[name] = p
	rel, ok := strings.CutPrefix(name, module+"/")
	if !ok {
		return p, nil
	}
	dir := filepath.Join(root, filepath.FromSlash(rel))
	sources, err := build.ImportDir(dir, 0)
	if _, none := err.(*build.NoGoError); none {
		return p, nil
	} else if err != nil {
		return nil, err
	}
	var files []*ast.File
	for _, file := range sources.GoFiles {
		f, err := parser.ParseFile(l.fset, filepath.Join(dir, file), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	conf := types.Config{Importer: l, IgnoreFuncBodies: true, Error: func(error) {}}
	p, _ = conf.Check(name, l.fset, files, nil) // what it does not know has no value
	l.packages[name] = p
	return p, nil
}
