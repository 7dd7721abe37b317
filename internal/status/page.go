package status

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"math"
	"net/http"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/coredns-dnslb/coredns-dnslb/internal/plural"
)

// Look is how the blocks of a plugin look in the page.
type Look struct {
	templates *template.Template
	style     string
}

// NewLook parses page.html of a plugin, which is executed with Go values: its
// template "state" with a Part of what State or View returned, "view" with that for a
// page of the block alone, and "explanation" with each value that Explain returned.
// They have the functions of this package and funcs.
// page.css, if there is one, comes after the style of the page. Errors are those of
// the program, so that NewLook panics.
func NewLook(files fs.FS, funcs template.FuncMap) *Look {
	style, _ := fs.ReadFile(files, "page.css")
	return &Look{template.Must(template.New("").Funcs(pageFuncs).Funcs(funcs).ParseFS(files, "page.html")), string(style)}
}

// Part is what the templates "state" and "view" are executed with.
type Part struct {
	ID    string // of the block, for the ids of its elements and its pages /block/ID
	At    time.Time
	State any
}

// maxText is how long a text in the page is at most, in bytes: others chose some of
// them.
const maxText = 300

// pageFuncs are the functions of all templates.
var pageFuncs = template.FuncMap{
	"text": pageText, "ago": ago, "in": in, "when": when, "number": number, "count": count, "percent": percent, "bar": bar, "badge": Badge,
	"first": first, "more": more,
}

// pageText returns a text from outside as the page has it: without what does not
// print, and not at length.
func pageText(v any) string {
	s := fmt.Sprint(v)
	more := ""
	if len(s) > maxText {
		s, more = strings.ToValidUTF8(s[:maxText], ""), "…"
	}
	return strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '�'
		}
		return r
	}, s) + more
}

// roughly returns a duration as people say it.
func roughly(d time.Duration) string {
	switch d = d.Abs(); {
	case d < 90*time.Second:
		return strconv.Itoa(int(d.Seconds()+0.5)) + " s"
	case d < 90*time.Minute:
		return strconv.Itoa(int(d.Minutes()+0.5)) + " min"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d.Hours()+0.5)) + " h"
	}
	return strconv.Itoa(int(d.Hours()/24+0.5)) + " days"
}

// ago returns an element with how long ago a time was, such as 5 min ago.
func ago(t time.Time) template.HTML { return timeElement(t, roughly(time.Since(t))+" ago") }

// in returns an element with the time until t, such as in 5 min.
func in(t time.Time) template.HTML {
	if time.Until(t) < 0 {
		return ago(t)
	}
	return timeElement(t, "in "+roughly(time.Until(t)))
}

// when returns an element with a time of the day in UTC, and the day if it is
// another one.
func when(t time.Time) template.HTML {
	t = t.UTC()
	format := "15:04:05"
	if t.Format(time.DateOnly) != time.Now().UTC().Format(time.DateOnly) {
		format = "2006-01-02 15:04"
	}
	return timeElement(t, t.Format(format))
}

func timeElement(t time.Time, text string) template.HTML {
	if t.IsZero() {
		return "never"
	}
	full := t.UTC().Format(time.RFC3339)
	return template.HTML(`<time datetime="` + full + `" title="` + full + `">` + text + `</time>`) // #nosec G203 -- digits and words of this file
}

// number returns an integer with its thousands apart.
func number(v any) string {
	digits := fmt.Sprint(v)
	start := len(digits) % 3
	out := []string{digits[:start]}
	if start == 0 {
		out = nil
	}
	for i := start; i < len(digits); i += 3 {
		out = append(out, digits[i:i+3])
	}
	return strings.Join(out, ",")
}

// count returns how many there are of a noun, such as 1,234 nodes.
func count(v any, noun string) string {
	one := uint64(2) // whatever is not one
	if fmt.Sprint(v) == "1" {
		one = 1
	}
	return number(v) + " " + plural.Noun(one, noun)
}

// percent returns a share from 0 to 1 as a percentage. What is not all does not look
// like all, and what is not nothing does not look like nothing.
func percent(share float64) string {
	switch p := share * 100; {
	case math.IsNaN(p):
		return "–"
	case p > 0 && p < 0.1:
		return "< 0.1 %"
	case p < 10 && p != math.Trunc(p):
		return strconv.FormatFloat(p, 'f', 1, 64) + " %"
	case p < 100:
		return strconv.Itoa(int(min(p+0.5, 99))) + " %"
	default:
		return "100 %"
	}
}

// bar returns a bar for a share from 0 to 1, which a text beside it tells, too.
func bar(share float64) template.HTML {
	if !(share > 0) { // or it is not a number
		share = 0
	}
	return template.HTML(fmt.Sprintf(`<svg class="bar" aria-hidden="true"><rect width="%.1f%%" height="100%%"/></svg>`, 100*min(share, 1))) // #nosec G203 -- a number
}

// badges are the signs of the kinds of badges: a state is told by shape, color and
// text.
var badges = map[string]string{"good": "●", "warn": "▲", "bad": "✕", "idle": "■", "new": "○"}

// Badge returns a state as the function "badge" of templates does. Its kind says how
// good that is: good, warn, bad, idle or new.
func Badge(kind string, text any) (template.HTML, error) {
	sign, ok := badges[kind]
	if !ok {
		return "", fmt.Errorf("unknown kind of badge %q", kind)
	}
	return template.HTML(`<span class="badge ` + kind + `"><b aria-hidden="true">` + sign + `</b> ` + template.HTMLEscapeString(pageText(text)) + `</span>`), nil // #nosec G203 -- escaped
}

// first returns the first elements of a list.
func first(most int, list any) (any, error) {
	v := reflect.ValueOf(list)
	if v.Kind() != reflect.Slice {
		return nil, fmt.Errorf("%T is no list", list)
	}
	return v.Slice(0, min(most, v.Len())).Interface(), nil
}

// more returns how many elements of a list come after the first ones.
func more(most int, list any) (int, error) {
	v := reflect.ValueOf(list)
	if v.Kind() != reflect.Slice {
		return 0, fmt.Errorf("%T is no list", list)
	}
	return max(0, v.Len()-most), nil
}

//go:embed page
var pageFiles embed.FS

var pageTemplates = template.Must(template.New("").Funcs(pageFuncs).ParseFS(pageFiles, "page/*.html"))

// frame is what the pages have in common.
type frame struct {
	Host, Title   string
	At            time.Time
	Name, Address string      // in the form
	Names         []string    // that the form proposes
	Blocks        []blockPart // all of them
	Sections      []blockPart // those that are shown
	Explain       bool        // explanations are asked for
	Explained     []explainedPart
	Errors        []string
}

// blockPart is a block in the page.
type blockPart struct {
	ID, Plugin, Zone, Node string
	HTML                   template.HTML
}

type explainedPart struct {
	Plugin, Zone, Node string
	HTML               template.HTML
}

// maxProposedNames is how many names of a block the form proposes.
const maxProposedNames = 100

func newFrame(blocks []Block, name, address string) frame {
	host, _ := os.Hostname()
	f := frame{Host: host, At: time.Now(), Name: name, Address: address}
	for i, b := range blocks {
		f.Blocks = append(f.Blocks, blockPart{ID: "b" + strconv.Itoa(i+1), Plugin: b.Plugin, Zone: b.Zone, Node: b.Node})
	}
	f.Names = proposedNames(blocks)
	return f
}

// proposedNames returns the names that can be explained, each once.
func proposedNames(blocks []Block) (names []string) {
	for _, b := range blocks {
		names = append(names, b.Names(maxProposedNames)...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Render returns what a template of the look makes of data.
func (l *Look) Render(name string, data any) template.HTML {
	var b bytes.Buffer
	if err := l.templates.ExecuteTemplate(&b, name, data); err != nil {
		log.Errorf("Failed to make the status page: %v", err)
		return "<p>This part of the page failed, see the log.</p>"
	}
	return template.HTML(b.String()) // #nosec G203 -- the output of html/template
}

// showState answers with the page of all blocks.
func (s *server) showState(w http.ResponseWriter, _ *http.Request) {
	blocks := s.blocks()
	f := newFrame(blocks, "", "")
	f.Sections = f.Blocks
	for i, b := range blocks {
		state := b.State
		if b.View != nil {
			state = func() any { view, _ := b.View(nil); return view }
		}
		f.Sections[i].HTML = b.Look.Render("state", Part{f.Blocks[i].ID, f.At, state()})
	}
	show(w, http.StatusOK, f)
}

// showBlock answers with a page of one block.
func (s *server) showBlock(w http.ResponseWriter, r *http.Request) {
	blocks := s.blocks()
	f := newFrame(blocks, "", "")
	i := slices.IndexFunc(f.Blocks, func(b blockPart) bool { return b.ID == r.PathValue("id") })
	if i < 0 || blocks[i].View == nil {
		f.Errors = []string{"there is no such page: since a reload, the server blocks may be others"}
		show(w, http.StatusNotFound, f)
		return
	}
	view, err := blocks[i].View(r.URL.Query())
	if err != nil {
		f.Errors = []string{err.Error()}
		show(w, http.StatusNotFound, f)
		return
	}
	f.Sections = f.Blocks[i : i+1]
	f.Sections[0].HTML = blocks[i].Look.Render("view", Part{f.Blocks[i].ID, f.At, view})
	show(w, http.StatusOK, f)
}

// showExplanations answers with the page of explanations, or its form alone.
func (s *server) showExplanations(w http.ResponseWriter, r *http.Request) {
	blocks, query := s.blocks(), r.URL.Query()
	f := newFrame(blocks, pageText(query.Get("name")), pageText(query.Get("address")))
	f.Explain = true
	if f.Name+f.Address != "" {
		address, err := parseResolver(query.Get("address"))
		if err != nil {
			f.Errors = append(f.Errors, err.Error())
		} else {
			f.explain(blocks, query.Get("name"), address)
		}
	}
	show(w, http.StatusOK, f)
}

func (f *frame) explain(blocks []Block, name string, address netip.Addr) {
	explained, reasons := explain(blocks, name, address)
	for _, e := range explained {
		f.Explained = append(f.Explained, explainedPart{e.Plugin, e.Zone, e.block.Node, e.block.Look.Render("explanation", e.Explanation)})
	}
	if len(explained) == 0 {
		f.Errors = reasons
	}
}

func show(w http.ResponseWriter, code int, f frame) {
	var b bytes.Buffer
	if err := pageTemplates.ExecuteTemplate(&b, "page.html", f); err != nil {
		log.Errorf("Failed to make the status page: %v", err)
		http.Error(w, "failed to make the page, see the log", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write(b.Bytes())
}

// style answers with the style of the page and those of all plugins in it.
func (s *server) style(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	text, _ := pageFiles.ReadFile("page/page.css")
	_, _ = w.Write(text)
	written := make(map[*Look]bool)
	for _, b := range s.blocks() {
		if !written[b.Look] {
			_, _ = w.Write([]byte(b.Look.style))
		}
		written[b.Look] = true
	}
}

// file returns a handler for a file of the page.
func file(name, contentType string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		text, _ := pageFiles.ReadFile("page/" + name)
		_, _ = w.Write(text)
	}
}
