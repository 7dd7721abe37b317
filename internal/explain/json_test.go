package explain

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/dnsmsg"
)

func TestJSONNames(t *testing.T) {
	const name = "_explain.example.org."
	for _, first := range []int{0, 1, 12345} {
		if rest, got, ok := CutJSON(JSONName(name, first)); rest != name || got != first || !ok {
			t.Errorf("%d: Expected %s, got %s, %d, %v", first, name, rest, got, ok)
		}
	}
	for _, name := range []string{name, ".", "_json", "_json-0." + name, "_json-01." + name, "_json--1." + name, "_json-x." + name, "_json-." + name, "_jsonx." + name, "_json-99999999999999999999." + name} {
		if rest, _, ok := CutJSON(name); ok && name != "_json" || !ok && rest != name {
			t.Errorf("Expected %s to ask for no JSON, got %s, %v", name, rest, ok)
		}
	}
}

// TestObjectsArrive checks that all values arrive, in as many messages as it takes.
func TestObjectsArrive(t *testing.T) {
	const owner = "_json-12345._explain.example.org."
	type value struct{ Name, Text string }
	for name, tc := range map[string]struct{ values, length, messages int }{
		"none": {0, 0, 1}, "one": {1, 100, 1}, "many": {3000, 400, 28}, "large": {3, 50_000, 3}, "with escapes": {500, 300, 6},
	} {
		var values []Value
		for i := range tc.values {
			text := strings.Repeat("x", tc.length)
			if name == "with escapes" {
				text = strings.Repeat("\"\\\x00é\u009b", tc.length/10)
			}
			values = append(values, Value{"thing", value{fmt.Sprint(i), text}})
		}
		var got []Object
		messages, next := 0, 0
		for messages == 0 || next > 0 {
			rrs, err := JSONRecords(owner, "dnsb", "example.org.", values, next)
			if err != nil {
				t.Fatal(err)
			}
			m := &dns.Msg{Compress: true, Answer: rrs}
			m.SetQuestion(owner, dns.TypeTXT)
			wire, err := m.Pack()
			if err != nil || len(wire) > dns.MaxMsgSize-1000 {
				t.Fatalf("%s: Expected a message with room, got %d bytes, %v", name, len(wire), err)
			}
			if err := m.Unpack(wire); err != nil {
				t.Fatal(err)
			}
			var texts []string
			for _, rr := range m.Answer {
				texts = append(texts, dnsmsg.Text(rr.(*dns.TXT)))
			}
			objects, following, err := ParseObjects(texts)
			if err != nil || len(texts) == 0 || following > 0 && following != next+len(objects) {
				t.Fatalf("%s: Expected objects, got %d, %d, %v", name, len(objects), following, err)
			}
			got, next = append(got, objects...), following
			messages++
		}
		if len(got) != tc.values || messages != tc.messages {
			t.Errorf("%s: Expected %d objects in %d messages, got %d in %d", name, tc.values, tc.messages, len(got), messages)
		}
		for i, o := range got {
			var v value
			if err := json.Unmarshal(o.Value, &v); err != nil || o.Plugin != "dnsb" || o.Zone != "example.org." || o.Kind != "thing" || v.Name != fmt.Sprint(i) || v.Text != values[i].Value.(value).Text {
				t.Fatalf("%s: Unexpected object %d: %+v, %v", name, i, o, err)
			}
		}
	}
}

func TestObjectTooLarge(t *testing.T) {
	rrs, err := JSONRecords("_json._explain.example.org.", "dnslb", "example.org.", []Value{{"answer", strings.Repeat("x", 70_000)}, {"answer", "y"}}, 0)
	if err != nil || len(rrs) != 2 {
		t.Fatalf("Expected two records, got %d, %v", len(rrs), err)
	}
	objects, next, err := ParseObjects([]string{dnsmsg.Text(rrs[0].(*dns.TXT)), dnsmsg.Text(rrs[1].(*dns.TXT))})
	if err != nil || next != 0 || len(objects) != 2 || objects[0].Kind != KindError || !strings.Contains(string(objects[0].Value), "the value has 70002 bytes, too many") || objects[1].Kind != "answer" {
		t.Errorf("Expected an error instead of the first value, got %+v, %d, %v", objects, next, err)
	}
}

func TestInvalidObjects(t *testing.T) {
	for text, want := range map[string]string{
		"par1 live":                  `invalid JSON "par1 live"`,
		`{"version":2,"kind":"new"}`: "unknown version 2 of an object, expected 1",
		`{}`:                         "unknown version 0",
	} {
		if _, _, err := ParseObjects([]string{text}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: Expected error %q, got %v", text, want, err)
		}
	}
}
