package main

import (
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/goreleaser/nfpm/v2"
	"github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
)

// packages makes a Debian package for each architecture from package.yaml.
func (r *release) packages() error {
	pages, err := os.MkdirTemp("", name)
	if err != nil {
		return err
	}
	defer os.RemoveAll(pages)
	if err := errors.Join(r.manPages(pages), r.documents(pages)); err != nil {
		return err
	}
	for _, arch := range architectures {
		if err := r.deb(arch, pages); err != nil {
			return fmt.Errorf("make the package for %s: %w", arch, err)
		}
	}
	return nil
}

func (r *release) deb(arch, pages string) error {
	variables := map[string]string{"ARCH": arch, "VERSION": r.version, "PROGRAM": r.program(arch), "ROOT": r.root, "PAGES": pages}
	config, err := nfpm.ParseFileWithEnvMapping(filepath.Join(r.root, "deploy", "package.yaml"), func(name string) string { return variables[name] })
	if err != nil {
		return err
	}
	info, err := config.Get("deb")
	if err != nil {
		return err
	}
	info = nfpm.WithDefaults(info)
	info.MTime = r.time
	for _, script := range []*string{&info.Scripts.PostInstall, &info.Scripts.PreRemove, &info.Scripts.PostRemove} {
		*script = filepath.Join(r.root, *script)
	}
	for _, content := range info.Contents {
		if content.FileInfo == nil {
			content.FileInfo = new(files.ContentFileInfo)
		}
		content.FileInfo.MTime = r.time
	}
	packager := deb.Default
	f, err := os.Create(filepath.Join(r.out, packager.ConventionalFileName(info))) // #nosec G304 -- of this program
	if err != nil {
		return err
	}
	defer f.Close()
	if err := packager.Package(info, f); err != nil {
		return err
	}
	return f.Close()
}

// manPages makes the manual pages: those of the plugins have the form of CoreDNS's
// own.
func (r *release) manPages(dir string) error {
	for _, plugin := range []string{"dnsb", "dnslb", "latencyprobe"} {
		text, err := os.ReadFile(filepath.Join(r.root, "plugin", plugin, "README.md")) // #nosec G304 -- of the repository
		if err != nil {
			return err
		}
		_, text, _ = cutLine(text) // the heading
		if err := r.manPage(dir, "coredns-"+plugin, 7, string(text)); err != nil {
			return err
		}
	}
	text, err := os.ReadFile(filepath.Join(r.root, "docs", "commands.md")) // #nosec G304 -- of the repository
	if err != nil {
		return err
	}
	_, text, _ = cutLine(text)
	return r.manPage(dir, name, 8, "## Name\n\n"+name+" - CoreDNS that refers each resolver to a near server, and answers with the fastest one\n\n"+
		"## Description\n\n"+string(text)+"\n## See Also\n\ncoredns-dnsb(7), coredns-dnslb(7), coredns-latencyprobe(7)\n")
}

func cutLine(text []byte) (line, rest []byte, found bool) {
	i := strings.IndexByte(string(text), '\n')
	if i < 0 {
		return text, nil, false
	}
	return text[:i], text[i+1:], true
}

var (
	heading = regexp.MustCompile(`(?m)^##+ `)
	// link is a link into the repository, of which a manual page has the text.
	link = regexp.MustCompile(`\[([^]]*)\]\((?:\.\./|[a-z]+\.md)[^)]*\)`)
)

func (r *release) manPage(dir, page string, section int, text string) error {
	text = heading.ReplaceAllStringFunc(text, func(marks string) string {
		if strings.HasPrefix(marks, "## ") {
			return "# "
		}
		return "## "
	})
	text = lists(text)
	text = link.ReplaceAllString(text, "$1")
	title := fmt.Sprintf("%% %s %d %q %q\n\n", page, section, r.time.Format("January 2006"), name+" "+r.version)
	f, err := os.Create(filepath.Join(dir, fmt.Sprintf("%s.%d.gz", page, section))) // #nosec G304 -- of this program
	if err != nil {
		return err
	}
	defer f.Close()
	w := gzip.NewWriter(f)
	if _, err := w.Write(md2man.Render([]byte(title + text))); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return f.Close()
}

// lists makes lists of tables: on a manual page, their cells would be wider than a
// terminal.
func lists(text string) string {
	var b strings.Builder
	var head []string
	for line := range strings.Lines(text) {
		row, ok := strings.CutPrefix(strings.TrimSpace(line), "| ")
		cells := strings.Split(strings.TrimSuffix(row, " |"), " | ")
		switch {
		case strings.HasPrefix(line, "|--") && head != nil:
		case !ok:
			head = nil
			b.WriteString(line)
		case head == nil:
			head = cells
		default:
			fmt.Fprintf(&b, "* %s: %s", cells[0], cells[1])
			for i := 2; i < len(cells); i++ {
				fmt.Fprintf(&b, "; %s: %s", head[i], cells[i])
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}
