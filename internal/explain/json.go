package explain

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

const (
	// jsonLabel in front of a question asks for JSON instead of text: an object in
	// each record. jsonLabel-N asks for those from N on, counted from 0.
	jsonLabel = "_json"
	// jsonVersion grows when a field goes away or changes its meaning, not when one
	// is added.
	jsonVersion = 1
)

// Value is a value that explains something, and what it is.
type Value struct {
	Kind  string
	Value any
}

// Object is what a record has as JSON: a value, or where to go on.
type Object struct {
	Version int             `json:"version"`
	Plugin  string          `json:"plugin,omitempty"` // dnsb or dnslb
	Zone    string          `json:"zone,omitempty"`
	Kind    string          `json:"kind,omitempty"` // of the value
	Value   json.RawMessage `json:"value,omitempty"`
	Next    int             `json:"next,omitempty"` // the objects from here on did not fit into the message; 0: they are all
}

// JSONName returns the name that asks for the objects of another one, from first on.
func JSONName(name string, first int) string {
	if first == 0 {
		return jsonLabel + "." + name
	}
	return fmt.Sprintf("%s-%d.%s", jsonLabel, first, name)
}

// CutJSON returns what a name in lower case asks to have as JSON, and from where on. It
// is name itself if ok is false.
func CutJSON(name string) (rest string, first int, ok bool) {
	label, rest, _ := strings.Cut(name, ".")
	if label == jsonLabel {
		return rest, 0, true
	}
	number, found := strings.CutPrefix(label, jsonLabel+"-")
	if !found {
		return name, 0, false
	}
	first, err := strconv.Atoi(number)
	if err != nil || first < 1 || strconv.Itoa(first) != number {
		return name, 0, false
	}
	return rest, first, true
}

// JSONRecords returns values as TXT records, from first on, as many as fit into a
// message. If there are more, the last record says where to go on. Without any, there
// is one record without a value.
func JSONRecords(owner, plugin, zone string, values []Value, first int) ([]dns.RR, error) {
	var rrs []dns.RR
	size := 0
	for i, v := range values {
		if i < first {
			continue
		}
		text, err := objectText(plugin, zone, v)
		if err != nil {
			return nil, err
		}
		rr := record(owner, text)
		if size += dns.Len(record(".", text)) + 1; size > maxSize { // a compressed name has 2 bytes
			next, err := json.Marshal(Object{Version: jsonVersion, Next: i})
			return append(rrs, record(owner, string(next))), err
		}
		rrs = append(rrs, rr)
	}
	if len(rrs) == 0 { // an answer without records says nothing
		none, err := json.Marshal(Object{Version: jsonVersion})
		return []dns.RR{record(owner, string(none))}, err
	}
	return rrs, nil
}

// objectText returns the object of a value, or one with an error if it is too large for
// a message.
func objectText(plugin, zone string, v Value) (string, error) {
	value, err := json.Marshal(v.Value)
	if err != nil {
		return "", err
	}
	if n := len(value); n > maxSize*9/10 { // with room for the lengths of strings
		v.Kind = KindError
		if value, err = json.Marshal(fmt.Sprintf("the value has %d bytes, too many for a message: ask for it by 'status' over HTTP", n)); err != nil {
			return "", err
		}
	}
	text, err := json.Marshal(Object{Version: jsonVersion, Plugin: plugin, Zone: zone, Kind: v.Kind, Value: value})
	return string(text), err
}

// KindError is the kind of a text that says why there is no value.
const KindError = "error"

// ParseObjects parses the texts of records that JSONRecords has made. next is where
// to go on; 0: these were all.
func ParseObjects(texts []string) (objects []Object, next int, err error) {
	objects = make([]Object, 0, len(texts))
	for _, text := range texts {
		var o Object
		if err := json.Unmarshal([]byte(text), &o); err != nil {
			return nil, 0, fmt.Errorf("invalid JSON %.40q: %w", text, err)
		}
		if o.Version != jsonVersion {
			return nil, 0, fmt.Errorf("unknown version %d of an object, expected %d: use the newer one of the two programs", o.Version, jsonVersion)
		}
		if o.Next != 0 {
			next = o.Next
		}
		if o.Kind != "" {
			objects = append(objects, o)
		}
	}
	return objects, next, nil
}
