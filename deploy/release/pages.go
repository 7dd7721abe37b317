package main

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// published is where the files of the repository are, each of them below a commit.
const published = "https://github.com/coredns-dnslb/coredns-dnslb/blob/"

// markdownLink is a link that does not lead to another site or within its page.
var markdownLink = regexp.MustCompile(`\]\(([^)\s:#]+)(#[^)\s]+)?\)`)

// documents writes the pages of docs/ and the changes as the package has them:
// links to what it does not have lead to the published files.
func (r *release) documents(dir string) error {
	commit, err := r.git("rev-parse", "HEAD")
	if err != nil {
		return err
	}
	sources, err := filepath.Glob(filepath.Join(r.root, "docs", "*.md"))
	if err != nil {
		return err
	}
	packaged := map[string]string{"CHANGELOG.md": "NEWS.md"} // by the path in the repository
	for _, source := range sources {
		page := path.Join("docs", filepath.Base(source))
		packaged[page] = page
	}
	if err := os.Mkdir(filepath.Join(dir, "docs"), 0o700); err != nil {
		return err
	}
	for source, page := range packaged {
		text, err := os.ReadFile(filepath.Join(r.root, source)) // #nosec G304 -- of the repository
		if err != nil {
			return err
		}
		text = markdownLink.ReplaceAllFunc(text, func(link []byte) []byte {
			parts := markdownLink.FindSubmatch(link)
			target := path.Join(path.Dir(source), string(parts[1]))
			if _, err := os.Stat(filepath.Join(r.root, target)); err != nil || packaged[target] == target || strings.HasPrefix(target, "..") {
				return link
			}
			return fmt.Appendf(nil, "](%s%s/%s%s)", published, commit, target, parts[2])
		})
		if err := os.WriteFile(filepath.Join(dir, page), text, 0o600); err != nil { // #nosec G703 -- named by the repository
			return err
		}
	}
	return nil
}
