// Package pagetest reads pages for tests.
package pagetest

import (
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// Hostile are texts that a peer, a file or a query could have.
var Hostile = []string{
	`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `' onmouseover='alert(1)`, `</textarea></title></svg><svg onload=alert(1)>`, `javascript:alert(1)`,
	"\u202egro.elpmaxe", "a\x00b\x1b[2J", "\xff\xfe", strings.Repeat("<b>", 5000), `{{.}}`, `]]>`, `&lt;script&gt;`,
}

// Elements returns the elements of a page, or of a part of one.
func Elements(t *testing.T, page string) (list []*html.Node) {
	t.Helper()
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	for n := range root.Descendants() {
		if n.Type == html.ElementNode {
			list = append(list, n)
		}
	}
	return list
}

// Shape returns the elements of a page with the names of their attributes: all that a
// text from outside must not change.
func Shape(t *testing.T, page string) (shape []string) {
	t.Helper()
	for _, n := range Elements(t, page) {
		element := []string{n.Data}
		for _, a := range n.Attr {
			element = append(element, a.Key)
		}
		shape = append(shape, strings.Join(element, " "))
	}
	return shape
}

// Texts returns the texts of the elements with a tag and a class; "" is any class.
func Texts(t *testing.T, page, tag, class string) (texts []string) {
	t.Helper()
	for _, n := range Elements(t, page) {
		if n.Data == tag && (class == "" || Attribute(n, "class") == class) {
			texts = append(texts, Text(n))
		}
	}
	return texts
}

// Attribute returns an attribute of an element, "" if it has none.
func Attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// Text returns the words in an element.
func Text(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data)
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// CheckClean checks that a page is not larger than it may be, and has no characters
// that do not print.
func CheckClean(t *testing.T, page string, most int) {
	t.Helper()
	if len(page) > most {
		t.Errorf("Expected at most %d bytes, got %d", most, len(page))
	}
	if strings.ContainsAny(page, "\u202e\x00\x1b") || strings.ToValidUTF8(page, "") != page {
		t.Error("Expected no characters that do not print")
	}
}
