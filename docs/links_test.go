package docs

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	fence    = regexp.MustCompile("(?ms)^(~~~|```).*?^(~~~|```)$")
	codeText = regexp.MustCompile("`[^`\n]*`")
	// link is the destination of a link or image.
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#{1,6} +(.+?) *$`)
	named   = regexp.MustCompile(`<a name="([^"]+)">`)
	// notInAnchor is what GitHub leaves out of the anchor of a heading.
	notInAnchor = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// TestLinks checks that the relative links of all pages lead to a file and, if they
// name one, to a place in it.
func TestLinks(t *testing.T) {
	links := 0
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && (e.Name() == "testdata" || e.Name() == "dist" || path != root && strings.HasPrefix(e.Name(), ".")):
			return filepath.SkipDir
		case e.IsDir() || filepath.Ext(path) != ".md":
			return nil
		}
		for _, m := range link.FindAllStringSubmatch(codeText.ReplaceAllString(fence.ReplaceAllString(read(t, path), ""), "code"), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			links++
			if err := followLink(t, path, m[1]); err != nil {
				t.Errorf("%s: Expected a target of the link %s: %v", path, m[1], err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if links < 100 {
		t.Errorf("Expected links, got %d", links)
	}
}

// TestReadmeListsAllPages checks that each page can be found from the README.
func TestReadmeListsAllPages(t *testing.T) {
	readme := read(t, filepath.Join(root, "README.md"))
	pages, err := filepath.Glob("*.md")
	if err != nil || len(pages) < 20 {
		t.Fatalf("Expected pages, got %d, %v", len(pages), err)
	}
	for _, page := range pages {
		if !strings.Contains(readme, "](docs/"+page) {
			t.Errorf("Expected docs/%s in the README", page)
		}
	}
}

// followLink returns an error if a link of a page leads nowhere.
func followLink(t *testing.T, page, to string) error {
	t.Helper()
	name, anchor, _ := strings.Cut(to, "#")
	target := page
	if name != "" {
		target = filepath.Join(filepath.Dir(page), name)
	}
	if _, err := os.Stat(target); err != nil || anchor == "" || filepath.Ext(target) != ".md" {
		return err
	}
	if !anchors(read(t, target))[anchor] {
		return fmt.Errorf("no anchor %s", anchor)
	}
	return nil
}

// anchors returns those that a page names, and those of its headings as GitHub
// makes them.
func anchors(text string) map[string]bool {
	found, count := make(map[string]bool), make(map[string]int)
	text = fence.ReplaceAllString(text, "")
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		title := link.ReplaceAllString(m[1], "")
		anchor := strings.ReplaceAll(notInAnchor.ReplaceAllString(strings.ToLower(title), ""), " ", "-")
		if n := count[anchor]; n > 0 {
			found[fmt.Sprintf("%s-%d", anchor, n)] = true
		} else {
			found[anchor] = true
		}
		count[anchor]++
	}
	for _, m := range named.FindAllStringSubmatch(text, -1) {
		found[m[1]] = true
	}
	return found
}
