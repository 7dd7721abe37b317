package operator

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// AddLine appends a line to an admin file, which need not exist.
func AddLine(path, line string) error {
	return edit(path, func(lines []string) []string { return append(lines, line) })
}

// RemoveLines removes the lines that match from an admin file, and returns them.
func RemoveLines(path string, match func(fields []string) bool) (removed []string, err error) {
	err = edit(path, func(lines []string) []string {
		return slices.DeleteFunc(lines, func(line string) bool {
			found := match(Fields(line))
			if found {
				removed = append(removed, strings.TrimSpace(line))
			}
			return found
		})
	})
	return removed, err
}

// Lines returns the lines of an admin file that are not empty, without comments. One
// that does not exist has none.
func Lines(path string) ([]string, error) {
	content, err := os.ReadFile(path) // #nosec G304 -- named by the operator
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var lines []string
	for line := range strings.Lines(string(content)) {
		if fields := Fields(line); len(fields) > 0 {
			lines = append(lines, strings.Join(fields, " "))
		}
	}
	return lines, nil
}

// Fields returns the words of a line without its comment.
func Fields(line string) []string {
	text, _, _ := strings.Cut(line, "#")
	return strings.Fields(text)
}

// edit replaces a file by one with other lines, in one step. Its next version is also
// the lock: two operators do not lose each other's lines.
func edit(path string, change func(lines []string) []string) (err error) {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	next := path + ".new"
	w, err := os.OpenFile(next, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) // #nosec G304 -- named by the operator
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists: another command is editing the file now, or was killed, then remove it", next)
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = w.Close()
			_ = os.Remove(next)
		}
	}()
	mode := fs.FileMode(0o644)
	var lines []string
	content, err := os.ReadFile(path) // #nosec G304 -- named by the operator
	switch {
	case err == nil:
		if text := strings.TrimRight(string(content), "\n"); text != "" {
			lines = strings.Split(text, "\n")
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		mode = info.Mode().Perm()
		KeepOwner(next, info)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	changed := change(slices.Clone(lines))
	if slices.Equal(changed, lines) {
		return errors.Join(w.Close(), os.Remove(next))
	}
	text := strings.Join(changed, "\n")
	if text != "" {
		text += "\n"
	}
	if _, err := w.WriteString(text); err != nil {
		return err
	}
	if err := w.Chmod(mode); err != nil {
		return err
	}
	if err := w.Sync(); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return os.Rename(next, path)
}
