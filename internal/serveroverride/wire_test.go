package serveroverride

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
	"github.com/coredns-dnslb/coredns-dnslb/internal/override"
)

const cut = "svc.gslb.example.org."

func TestNames(t *testing.T) {
	for name, want := range map[string][2]string{
		NameFor("par1", cut): {"par1", cut}, "par1._override.example.org.": {"par1", "example.org."},
		ZoneOf(cut): {}, "_override.": {}, "par1._override.": {}, "par1.x._override.svc.": {}, "par1._map." + cut: {}, ".": {}, cut: {},
	} {
		node, got, ok := ParseName(name)
		if ok != (want != [2]string{}) || ok && (node != want[0] || got != want[1]) {
			t.Errorf("%s: Expected %v, got %q, %q, %v", name, want, node, got, ok)
		}
	}
}

func TestLinesTravel(t *testing.T) {
	owner := NameFor("par1", cut)
	longest := make([]string, Max)
	for i := range longest {
		line := "down fra" + later + ` "quoted" back\slash `
		longest[i] = line + strings.Repeat("x", override.MaxLength-len(line))
	}
	for name, lines := range map[string][]string{"none": {}, "one": {"down fra" + later}, "most": longest} {
		m := new(dns.Msg)
		m.Answer = Records(owner, lines)
		m.Compress = true
		packed, err := m.Pack()
		if err != nil || len(packed) > dns.MaxMsgSize-1000 { // room for question and TSIG
			t.Fatalf("%s: Expected a message with room, got %d bytes, %v", name, len(packed), err)
		}
		if err := m.Unpack(packed); err != nil {
			t.Fatal(err)
		}
		slices.Reverse(m.Answer)
		if got, err := ReadLines(m.Answer, owner); err != nil || !slices.Equal(got, lines) {
			t.Errorf("%s: Expected %q, got %q, %v", name, lines, got, err)
		}
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	owner := NameFor("par1", cut)
	for err, texts := range map[string][]string{
		ErrUnsupported.Error():    {"1 down fra" + later},
		"unknown version \"v=2\"": {"v=2"},
		"expected a number and":   {"v=1", "down fra" + later},
		"override 1 is missing":   {"v=1", "2 down fra" + later},
		"override 2 is missing":   {"v=1", "1 down fra" + later, "1 down iad" + later},
		"more than 50 overrides":  append([]string{"v=1"}, slices.Repeat([]string{"1 down fra"}, Max+1)...),
	} {
		var answer []dns.RR
		for _, text := range texts {
			answer = append(answer, dnsmsg.NewTXT(dnsmsg.Header(owner, dns.TypeTXT, 0), text))
		}
		if _, got := ReadLines(answer, owner); got == nil || !strings.Contains(got.Error(), err) {
			t.Errorf("%q: Expected error %q, got %v", texts, err, got)
		}
	}
	other := Records("lon1._override."+cut, []string{"down fra" + later})
	if _, err := ReadLines(other, owner); !errors.Is(err, ErrUnsupported) {
		t.Errorf("Expected records of another name not to count, got %v", err)
	}
	if lines, err := ReadLines([]dns.RR{dnsmsg.NewTXT(dnsmsg.Header(owner, dns.TypeTXT, 0), "v=1 and a word of a later version")}, owner); err != nil || len(lines) > 0 {
		t.Errorf("Expected further words to be ignored, got %q, %v", lines, err)
	}
}

// FuzzReadLines reads what an answer may hold: lines are those that its records have,
// each once and in order.
func FuzzReadLines(f *testing.F) {
	f.Add("v=1", "1 down fra"+later, "2 up iad")
	f.Add("v=2", "1 x", "")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		owner := NameFor("par1", cut)
		var answer []dns.RR
		for _, text := range []string{a, b, c} {
			if len(text) > override.MaxLength {
				return
			}
			answer = append(answer, dnsmsg.NewTXT(dnsmsg.Header(owner, dns.TypeTXT, 0), text))
		}
		lines, err := ReadLines(answer, owner)
		if err != nil {
			return
		}
		if len(lines) > 2 {
			t.Fatalf("Expected at most two lines besides the version, got %q", lines)
		}
		again, err := ReadLines(Records(owner, lines), owner)
		if err != nil || !slices.Equal(again, lines) {
			t.Errorf("Expected %q again, got %q, %v", lines, again, err)
		}
	})
}
