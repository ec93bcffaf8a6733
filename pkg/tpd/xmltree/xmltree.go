// SPDX-License-Identifier: Apache-2.0

// Package xmltree reads a small, strict part of XML into a tree that knows
// where each element lies in the text. It is the one place that reads XML.
//
// # What it takes
//
// What .NET's XmlSerializer and AD RMS write: a declaration, elements that hold
// either elements or text, attributes, the five named and the numeric character
// references. A document is read once, from front to back; text without
// references is a part of the input and is not copied.
//
// And what .NET passes over where it was put in: comments and processing
// instructions between elements, which are noted in [Document].Passed, and
// elements in a namespace, which no known name finds: see [Node.Name].
//
// # What it refuses
//
// Whatever else XML has. None of it occurs in an export or a certificate, and
// what a reader skips unsaid is a place to hide something. All that is accepted
// here, encoding/xml (Strict) accepts too, as the same tree. It accepts more;
// what is refused here all the same is this list, and a test holds it:
//
//	directives     document types, entity declarations and CDATA sections
//	declaration    one that is not version, encoding, standalone in that order;
//	               an encoding that the document is not in
//	comments       in text or in an element without elements; with characters
//	               that XML has not
//	instructions   likewise; without white space after their name, or named xml
//	               or with a colon: so a declaration that is not first
//	mixed          text beside elements, or outside of the document
//	documents      more or less than one root element, also in an empty text
//	end            elements that are still open where the text ends
//	names          with a colon that parts no prefix
//	namespaces     prefixes that are not declared, or declared empty, or as xml or
//	               xmlns
//	attributes     one that occurs twice in an element, by its name or its
//	               namespace; no white space before one; in values line ends and
//	               tabs, which readers disagree on, and ]]>
//	references     numeric ones of no character: surrogates
//	bounds         32 elements deep, 1,048,576 elements and as many attributes,
//	               16 of them in an element, 16 namespaces in force, 1 KiB of a
//	               name with letters outside of ASCII, 2 GiB
package xmltree

import (
	"errors"
	"iter"
	"strings"
	"unsafe"
)

// Bounds of a document. XrML is 11 elements deep, with 2 attributes.
const (
	maxDepth    = 32
	maxElements = 1 << 20 // and as many attributes
	maxAttrs    = 16
	maxPrefixes = 16
	maxLength   = 1<<31 - 1
)

// Document is a parsed document. Parsing another one with the same Document
// takes the memory of its tree again, and with it all Nodes of the former one;
// strings stay.
type Document struct {
	Text   string   // what was parsed: the characters of the source in UTF-8, no byte order mark
	Passed []string // what was passed over: [Comment] and [Instruction], if there are any

	encoding encoding
	elements []element
	attrs    []Attr
}

// Node is an element and all elements in it, in the order of their start tags,
// itself first. A nil Node, and so the result of a search that failed, has no
// children, text or attributes.
type Node []element

type element struct {
	name     string // see Node.Name
	text     string // of an element without child elements
	attrs    []Attr
	from, to int32 // in the document's Text, tags included
	inner    int32 // where the start tag ends
	size     int32 // elements from this one on that are in it, itself included
}

// Attr is an attribute. Namespace declarations are not among them.
type Attr struct {
	Space string // URI of its namespace, "" for none
	Name  string // without prefix
	Value string
}

// Root returns the root element.
func (d *Document) Root() Node { return d.elements }

// Name returns the element's name. That of an element in a namespace has a colon
// after its prefix, as it is written, or before it if it has none: no name to
// search for is like it.
func (n Node) Name() string {
	if len(n) == 0 {
		return ""
	}
	return n[0].name
}

// Text returns the text of an element without child elements.
func (n Node) Text() string {
	if len(n) == 0 {
		return ""
	}
	return n[0].text
}

// Range bounds the element, tags included, in the document's Text.
func (n Node) Range() (from, to int) { return int(n[0].from), int(n[0].to) }

// Content bounds what is between the element's tags in the Text of its document.
func (n Node) Content(d *Document) (from, to int) {
	from = int(n[0].inner)
	if from == int(n[0].to) { // one tag is all of it
		return from, from
	}
	return from, strings.LastIndexByte(d.Text[:n[0].to], '<')
}

// Attr returns the value of the attribute in no namespace, or "".
func (n Node) Attr(name string) string { return n.AttrIn("", name) }

// AttrIn returns the value of the attribute in the namespace, or "".
func (n Node) AttrIn(space, name string) string {
	if len(n) > 0 {
		for i := range n[0].attrs {
			if a := &n[0].attrs[i]; a.Name == name && a.Space == space {
				return a.Value
			}
		}
	}
	return ""
}

// Attrs returns the element's attributes, which are not to be changed.
func (n Node) Attrs() []Attr {
	if len(n) == 0 {
		return nil
	}
	return n[0].attrs
}

// Children returns the child elements in their order.
func (n Node) Children() iter.Seq[Node] {
	return func(yield func(Node) bool) {
		if len(n) == 0 {
			return
		}
		for rest := n[1:]; len(rest) > 0; rest = rest[rest[0].size:] {
			if !yield(rest[:rest[0].size]) {
				return
			}
		}
	}
}

// Within returns all elements in this one, at any depth, in the order of their
// start tags.
func (n Node) Within() iter.Seq[Node] {
	return func(yield func(Node) bool) {
		for i := 1; i < len(n); i++ {
			if !yield(n[i : i+int(n[i].size)]) {
				return
			}
		}
	}
}

// HasChildren reports whether there are child elements.
func (n Node) HasChildren() bool { return len(n) > 1 }

// All returns the child elements of that name, in their order.
func (n Node) All(name string) iter.Seq[Node] {
	return func(yield func(Node) bool) {
		for child := range n.Children() {
			if child[0].name == name && !yield(child) {
				return
			}
		}
	}
}

// Count returns how many child elements have that name.
func (n Node) Count(name string) int {
	count := 0
	for range n.All(name) {
		count++
	}
	return count
}

// One follows the path down; each step must be the only child element of its
// name. It returns nil if there is none, or more than one.
func (n Node) One(path ...string) Node {
	for _, name := range path {
		var found Node
		for child := range n.All(name) {
			if found != nil {
				return nil
			}
			found = child
		}
		n = found
	}
	return n
}

// TextOf returns the text of the element that [Node.One] finds, or "".
func (n Node) TextOf(path ...string) string { return n.One(path...).Text() }

// Parse reads a document from bytes: UTF-8 with or without a byte order mark,
// or UTF-16, which shows by its mark or its first character. The encoding that
// the document declares, if any, must be the one that it is in. The document
// refers to data, which must not be changed from then on.
func Parse(data []byte) (*Document, error) {
	text, enc, err := decode(data)
	if err != nil {
		return nil, err
	}
	d := new(Document)
	return d, d.parse(text, enc)
}

// ParseText reads a document that is already a string of characters into d, in
// the memory of what that held; an encoding that it declares says nothing about
// it, as in .NET.
func (d *Document) ParseText(text string) error { return d.parse(text, encoding{}) }

// parse fills in the tree.
func (d *Document) parse(text string, enc encoding) error {
	if len(text) > maxLength {
		return errors.New("it is longer than 2 GiB")
	}
	d.Text, d.Passed, d.encoding, d.elements, d.attrs = text, nil, enc, d.elements[:0], d.attrs[:0]
	p := parser{d: d, s: text}
	return p.document()
}

// stringOf returns the bytes as a string without copying them: an export has
// up to 256 MiB, and nobody writes into them once they are parsed.
func stringOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
