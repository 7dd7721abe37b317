package docs

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var (
	// verb is a verb of package fmt.
	verb = regexp.MustCompile(`%[-+# 0-9.]*[a-z]`)
	// loggedRow is a row of a table of log lines.
	loggedRow = regexp.MustCompile("^\\| `([^`]+)` \\|")
	// blockPrefix is the name of a server block in front of a line.
	blockPrefix = regexp.MustCompile(`^%s([A-Z])`)
	// extendedError is an Extended DNS Error on the page, with its text.
	extendedError = regexp.MustCompile(`EDE \d+ "([^"]+)"`)
	alertName     = regexp.MustCompile(`(?m)^ *- alert: (\w+)$`)
)

// made are the warnings that no constant has, by the file that logs them.
var made = map[string]string{
	"plugin/dnslb/switches.go": "All servers of %s are down, answering with %s",
}

// TestTroubleshootingHasAllLogLines compares the tables of the page with the
// warnings and errors that the program can log.
func TestTroubleshootingHasAllLogLines(t *testing.T) {
	var listed []string
	inTable := false
	for line := range strings.Lines(read(t, "troubleshooting.md")) {
		switch row := loggedRow.FindStringSubmatch(line); {
		case strings.HasPrefix(line, "| the log "):
			inTable = true
		case !strings.HasPrefix(line, "|"):
			inTable = false
		case inTable && row != nil:
			listed = append(listed, row[1])
		}
	}
	logged := logLines(t)
	if len(logged) < 50 {
		t.Fatalf("Expected the log lines of the program, got %d", len(logged))
	}
	for text, where := range logged {
		if !slices.Contains(listed, text) {
			t.Errorf("%s: Expected a row in docs/troubleshooting.md for\n`%s`", where, text)
		}
	}
	for path := range made {
		if !slices.ContainsFunc(slices.Collect(maps.Values(logged)), func(where string) bool { return strings.HasPrefix(where, path+":") }) {
			t.Errorf("Expected a log line in %s", path)
		}
	}
	for i, text := range listed {
		if logged[text] == "" {
			t.Errorf("Expected no row in docs/troubleshooting.md for what is not logged:\n`%s`", text)
		}
		if slices.Contains(listed[:i], text) {
			t.Errorf("Expected one row in docs/troubleshooting.md for\n`%s`", text)
		}
	}
}

// TestTroubleshootingHasAllAlerts checks that each alert leads to a symptom.
func TestTroubleshootingHasAllAlerts(t *testing.T) {
	page := read(t, "troubleshooting.md")
	alerts := alertName.FindAllStringSubmatch(read(t, filepath.Join(root, "deploy", "alerts.yml")), -1)
	if len(alerts) < 10 {
		t.Fatalf("Expected alerts, got %d", len(alerts))
	}
	for _, alert := range alerts {
		if !strings.Contains(page, "`"+alert[1]+"`") {
			t.Errorf("Expected alert %s in docs/troubleshooting.md", alert[1])
		}
	}
}

// TestTroubleshootingHasTextsOfReplies checks that DNS-B has the texts of the page in
// its replies.
func TestTroubleshootingHasTextsOfReplies(t *testing.T) {
	var source string
	for _, name := range []string{"answer.go", "referral.go"} {
		source += read(t, filepath.Join(root, "plugin", "dnsb", name))
	}
	texts := extendedError.FindAllStringSubmatch(read(t, "troubleshooting.md"), -1)
	if len(texts) < 3 {
		t.Fatalf("Expected texts of replies, got %d", len(texts))
	}
	for _, text := range texts {
		if !strings.Contains(source, strconv.Quote(text[1])) {
			t.Errorf("Expected DNS-B to answer with %q", text[1])
		}
	}
}

// logLines returns the warnings and errors that the program can log, as the page
// writes them, and where they are.
func logLines(t *testing.T) map[string]string {
	t.Helper()
	lines := make(map[string]string)
	fset := token.NewFileSet()
	add := func(path string, file *ast.File) {
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || !logsProblem(call.Fun) || len(call.Args) == 0 {
				return true
			}
			where := fset.Position(call.Pos())
			format, ok := constantText(call.Args[0])
			if !ok {
				format, ok = made[path]
			}
			if !ok {
				t.Errorf("%s: Expected a constant text, or one in the list of this test", where)
			}
			text := asOnPage(blockPrefix.ReplaceAllString(format, "$1"))
			lines[text] = fmt.Sprintf("%s:%d", path, where.Line)
			return true
		})
	}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && (e.Name() == "testdata" || path != root && strings.HasPrefix(e.Name(), ".")):
			return filepath.SkipDir
		case e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		if err == nil {
			rel, relErr := filepath.Rel(root, path)
			if relErr != nil {
				return relErr
			}
			add(filepath.ToSlash(rel), file)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// logsProblem reports whether a function is one that logs a warning or an error.
func logsProblem(f ast.Expr) bool {
	method, ok := f.(*ast.SelectorExpr)
	if !ok || !slices.Contains([]string{"Warning", "Warningf", "Error", "Errorf"}, method.Sel.Name) {
		return false
	}
	name := ""
	switch of := method.X.(type) {
	case *ast.Ident:
		name = of.Name
	case *ast.SelectorExpr:
		name = of.Sel.Name
	}
	return strings.HasSuffix(strings.ToLower(name), "log")
}

// constantText returns the text of a literal, or of several that are joined.
func constantText(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, err == nil
	case *ast.BinaryExpr:
		left, ok := constantText(e.X)
		right, ok2 := constantText(e.Y)
		return left + right, ok && ok2
	}
	return "", false
}

// asOnPage replaces the verbs of a format.
func asOnPage(format string) string {
	return verb.ReplaceAllStringFunc(format, func(v string) string {
		if strings.HasSuffix(v, "q") {
			return `"…"`
		}
		return "…"
	})
}
