package remotetext

import (
	"errors"
	"strings"
	"testing"
)

func TestCleanError(t *testing.T) {
	text := strings.Repeat("a", MaxError)
	for in, want := range map[string]string{"refused": "refused", "a\n": `a\x0a`, text: text, text + "a": text[:MaxError-3] + "..."} {
		if got := CleanError(errors.New(in)); got != want {
			t.Errorf("Expected %q, got %q", want, got)
		}
	}
}

func TestClean(t *testing.T) {
	a128 := strings.Repeat("a", Max)
	tests := []struct{ in, want string }{
		{"", ""},
		{`dial tcp: "x\y" refused`, `dial tcp: "x\y" refused`},
		{"a\x1b[2J\r\nb\x00\x7f", `a\x1b[2J\x0d\x0ab\x00\x7f`},
		{"\u202e\xff", `\xe2\x80\xae\xff`},
		{a128, a128},
		{a128 + "a", a128[:Max-3] + "..."},
		{a128[1:] + "\n", a128[:Max-3] + "..."},
		{a128[:Max-4] + "\n", a128[:Max-4] + `\x0a`},
		{strings.Repeat("\x1b", 1<<20), strings.Repeat(`\x1b`, 31) + "..."},
	}
	for _, tc := range tests {
		got := Clean(tc.in)
		if got != tc.want || len(got) > Max {
			t.Errorf("%.40q: Expected %q, got %q", tc.in, tc.want, got)
		}
		if again := Clean(got); again != got {
			t.Errorf("Expected %q to stay, got %q", got, again)
		}
	}
}
