// SPDX-License-Identifier: Apache-2.0

// Package xmltree reads a small, strict part of XML into a tree that knows
// where each element lies in the text. It is the one place that reads XML.
//
// It takes what .NET's XmlSerializer and AD RMS write, elements that hold
// either elements or text, and refuses the rest of XML: document types, entity
// declarations, processing instructions, comments, text beside elements,
// repeated attributes. None of that occurs in an export or a certificate, and
// whatever is skipped by a reader is a place to hide something.
//
// Depth and number of elements are bounded; the size of the text is for the
// caller to bound.
package xmltree

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"

	"keyferry/pkg/control"
)

// Bounds of a document. XrML is 11 elements deep.
const (
	maxDepth    = 32
	maxElements = 1 << 20
)

// Document is a parsed document.
type Document struct {
	Root *Node
	Text string // what was parsed: the characters of the source in UTF-8, no byte order mark

	encoding encoding
}

// Node is an element. Its name, and its attributes' names, are local names;
// in a namespace they are written {URI}name.
type Node struct {
	Name     string
	Attrs    []Attr
	Text     string // of an element without child elements
	Children []*Node
	// From, To bound the element in the document's Text, tags included.
	From, To int
}

// Attr is an attribute. Namespace declarations are not among them.
type Attr struct{ Name, Value string }

// Attr returns the value of the attribute, or "".
func (n *Node) Attr(name string) string {
	if n != nil {
		for _, a := range n.Attrs {
			if a.Name == name {
				return a.Value
			}
		}
	}
	return ""
}

// All returns the child elements of that name, in their order.
func (n *Node) All(name string) []*Node {
	var all []*Node
	if n != nil {
		for _, c := range n.Children {
			if c.Name == name {
				all = append(all, c)
			}
		}
	}
	return all
}

// One follows the path down; each step must be the only child element of its
// name. It returns nil if there is none, or more than one. A nil node, and so
// the result of a search that failed, has no children, text or attributes.
func (n *Node) One(path ...string) *Node {
	for _, name := range path {
		all := n.All(name)
		if len(all) != 1 {
			return nil
		}
		n = all[0]
	}
	return n
}

// TextOf returns the text of the element that [Node.One] finds, or "".
func (n *Node) TextOf(path ...string) string {
	if found := n.One(path...); found != nil {
		return found.Text
	}
	return ""
}

// Parse reads a document from bytes: UTF-8 with or without a byte order mark,
// or UTF-16 with one. The encoding that the document declares, if any, must be
// the one that it is in.
func Parse(data []byte) (*Document, error) {
	text, enc, err := decode(data)
	if err != nil {
		return nil, err
	}
	d := &Document{Text: text, encoding: enc}
	return d, d.parse(enc.name)
}

// ParseText reads a document that is already a string of characters; an
// encoding that it declares says nothing about it, as in .NET.
func ParseText(text string) (*Document, error) {
	d := &Document{Text: text}
	return d, d.parse("")
}

// reader is the state of one pass over a document.
type reader struct {
	open     []*Node        // from the root to the innermost open element
	texts    []bytes.Buffer // the text of each open element
	root     *Node          // once it has been opened
	elements int
}

// parse fills in d.Root. A declared encoding must be the given one; "" takes
// any.
func (d *Document) parse(encoding string) error {
	dec := xml.NewDecoder(strings.NewReader(d.Text))
	dec.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil } // checkDeclaration judges
	var r reader
	for {
		from := int(dec.InputOffset())
		token, err := dec.Token()
		if err == io.EOF {
			break
		}
		if syntax := new(xml.SyntaxError); errors.As(err, &syntax) {
			err = errors.New(control.Quote(syntax.Msg)) // it repeats names from the text
		}
		if err == nil {
			err = r.take(token, from, int(dec.InputOffset()), encoding)
		}
		if err != nil {
			return fmt.Errorf("at byte %d: %w", from, err)
		}
	}
	if r.root == nil {
		return errors.New("there is no XML element in it")
	}
	d.Root = r.root
	return nil
}

// take adds one token, which lies at from..to, to the tree.
func (r *reader) take(token xml.Token, from, to int, encoding string) error {
	switch token := token.(type) {
	case xml.StartElement:
		return r.start(token, from)
	case xml.EndElement:
		return r.end(to)
	case xml.CharData:
		return r.text(token)
	case xml.ProcInst:
		if token.Target != "xml" || from != 0 {
			return errors.New("a processing instruction is not accepted")
		}
		return checkDeclaration(string(token.Inst), encoding)
	case xml.Directive:
		return errors.New("a document type declaration is not accepted")
	default:
		return errors.New("a comment is not accepted")
	}
}

func (r *reader) start(token xml.StartElement, from int) error {
	if r.elements++; r.elements > maxElements {
		return fmt.Errorf("more than %d elements", maxElements)
	}
	if len(r.open) == maxDepth {
		return fmt.Errorf("elements are nested more than %d deep", maxDepth)
	}
	n := &Node{Name: name(token.Name), From: from}
	for _, a := range token.Attr {
		if a.Name.Space == "xmlns" || a.Name == (xml.Name{Local: "xmlns"}) {
			continue
		}
		for _, b := range n.Attrs {
			if b.Name == name(a.Name) {
				return errors.New("an attribute occurs twice in an element")
			}
		}
		n.Attrs = append(n.Attrs, Attr{name(a.Name), a.Value})
	}
	switch {
	case len(r.open) > 0:
		parent := r.open[len(r.open)-1]
		parent.Children = append(parent.Children, n)
	case r.root != nil:
		return errors.New("there is a second document after the first")
	default:
		r.root = n
	}
	r.open = append(r.open, n)
	r.texts = append(r.texts, bytes.Buffer{})
	return nil
}

func (r *reader) end(to int) error {
	last := len(r.open) - 1
	n, text := r.open[last], r.texts[last].Bytes()
	r.open, r.texts = r.open[:last], r.texts[:last]
	n.To = to
	if len(n.Children) == 0 {
		n.Text = string(text)
	} else if len(bytes.TrimSpace(text)) > 0 {
		return errors.New("text stands beside elements")
	}
	return nil
}

func (r *reader) text(text []byte) error {
	if len(r.open) == 0 {
		if len(bytes.TrimSpace(text)) > 0 {
			return errors.New("text stands outside of the document")
		}
		return nil
	}
	r.texts[len(r.open)-1].Write(text)
	return nil
}

func name(n xml.Name) string {
	if n.Space == "" {
		return n.Local
	}
	return "{" + n.Space + "}" + n.Local
}
