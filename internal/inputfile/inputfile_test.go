package inputfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadTextSkipsByteOrderMark(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for content, want := range map[string]string{
		"\ufeffa b\r\n":       "a b\r\n",
		"a \ufeffb\n":         "a \ufeffb\n",
		"\ufeff\ufeffa b\r\n": "\ufeffa b\r\n",
		"\ufeff":              "",
		"":                    "",
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadText(path); err != nil || string(got) != want {
			t.Errorf("Expected %q of %q, got %q: %v", want, content, got, err)
		}
		if got, err := Read(path); err != nil || string(got) != content {
			t.Errorf("Expected the whole %q, got %q: %v", content, got, err)
		}
	}
}

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"":                                "",
		`expected 'ttl "LOW" \ ÄÖ€'`:      `expected 'ttl "LOW" \ ÄÖ€'`,
		"\ufeff198.51.100.0/24":           `\ufeff198.51.100.0/24`,
		"\xff\xfe1\x009\x00":              `\xff\xfe1\x009\x00`,
		"a\u200bb\u202ec\x1b[31m\u00a0\t": `a\u200bb\u202ec\x1b[31m\u00a0\t`,
	} {
		if got := Printable(text); got != want {
			t.Errorf("Expected %s, got %s", want, got)
		}
	}
}

func TestReadRefusesHugeFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, MaxSize+1); err != nil { // takes no room on the disk
		t.Fatal(err)
	}
	if _, err := Read(path); !errors.Is(err, errTooLarge) || !strings.Contains(err.Error(), path) {
		t.Errorf("Expected an error with the path, got %v", err)
	}
}
