// SPDX-License-Identifier: Apache-2.0

// Package xmltree reads XML into a tree that knows where each element lies in
// the text. It is the one place that reads XML.
//
// [encoding/xml] does the reading. This package adds what .NET, whose importers
// read the same files next, refuses and encoding/xml takes: document types,
// prefixes that are not declared, prefixes and attributes that occur twice,
// bytes that are no characters (in comments too), references to surrogates,
// attributes without white space between them, a second root, text outside of
// the root, an xml:space of another value. What is taken here, .NET reads too.
//
// Comments and processing instructions are passed over, and noted in
// [Document].Passed. An element in a namespace is found by no plain name: see
// [Node.Name].
//
// Stricter than .NET: text beside elements, an attribute's value with a tab or a
// line end in it (which readers disagree on), and the bounds below.
package xmltree

import (
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"keyferry/pkg/control"
)

// Bounds of a document. A certificate is 11 elements deep, with 2 attributes.
const (
	maxDepth    = 32
	maxElements = 1 << 16
	maxAttrs    = 16
	maxPrefixes = 16
	maxTag      = 16 << 10 // bytes
)

// ErrTooMuch is a document that has more of something than any of AD RMS has.
var ErrTooMuch = errors.New("it holds more than any file of AD RMS")

// ErrNUL is a character that .NET Framework writes and not every reader of .NET
// takes.
var ErrNUL = errors.New("there is a NUL character")

// What a document may hold beside elements and text, see [Document].
const (
	Comment     = "a comment"
	Instruction = "a processing instruction"
	CDATA       = "a CDATA section"
)

// Document is a parsed document.
type Document struct {
	Text   string // the characters, from behind the XML declaration on
	Root   *Node
	Passed []string // which of [Comment], [Instruction] and [CDATA] are in it
}

// Node is an element. A nil Node, the result of a search that found nothing,
// has no text, attributes or children.
type Node struct {
	// Name has no prefix. That of an element in a namespace has its prefix and a
	// colon before it, or a colon alone where the namespace is the default one: no
	// name that is searched for looks so.
	Name     string
	Attrs    []Attr // without namespace declarations
	Children []*Node
	From, To int // where it lies in the document's Text, tags included

	text Text
}

// Attr is an attribute.
type Attr struct {
	Space string // URI of its namespace, "" for none
	Name  string // without prefix
	Value string
}

// Text is the text of an element without child elements, in the two readings
// that .NET has of a line that ends in CR LF: Exchange's importer keeps it as it
// stands, others get a line feed. Both are the same where no raw CR stands.
type Text struct{ AsIs, Normalised string }

// XMLNamespace is what XML itself declares the prefix xml for.
const XMLNamespace = "http://www.w3.org/XML/1998/namespace"

// Parse reads a document from bytes: UTF-8 with or without a byte order mark,
// or UTF-16, which shows by its mark or its first character. The encoding that
// the document declares, if any, must be the one that it is in.
func Parse(data []byte) (*Document, error) {
	text, err := decode(data)
	if err != nil {
		return nil, err
	}
	return ParseText(text)
}

// ParseText reads a document that is a string of characters already. An encoding
// that it declares says nothing about it.
func ParseText(text string) (*Document, error) {
	text, _, err := cutDeclaration(text)
	if err != nil {
		return nil, err
	}
	d := &Document{Text: text}
	if err := d.checkCharacters(); err != nil {
		return nil, err
	}
	return d, d.read()
}

// checkCharacters checks all of the text, which encoding/xml does not do in
// comments.
func (d *Document) checkCharacters() error {
	for at, r := range d.Text {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(d.Text[at:], "\uFFFD"):
			return d.damage(at, "a byte that is no character of UTF-8")
		case r < ' ' && r != '\t' && r != '\n' && r != '\r', r == 0xFFFE, r == 0xFFFF:
			return d.damage(at, "the character %U, which XML does not have", r)
		}
	}
	if at := null.FindStringIndex(d.Text); at != nil {
		return fmt.Errorf("%w in line %d, written as %s", ErrNUL, d.line(at[0]), d.Text[at[0]:at[1]])
	}
	return nil
}

var null = regexp.MustCompile(`&#x?0{1,8};`)

// damage says what is wrong, and where.
func (d *Document) damage(at int, format string, args ...any) error {
	return fmt.Errorf("line %d is damaged: there is %w", d.line(at), fmt.Errorf(format, args...))
}

func (d *Document) line(at int) int { return 1 + strings.Count(d.Text[:at], "\n") }

// source hands the text to encoding/xml, and ends a tag that is too long before
// its attributes take memory.
type source struct {
	io.Reader
	text      string
	at, token int // the next byte, and where the token begins that is being read
}

func (s *source) ReadByte() (byte, error) {
	if s.at == len(s.text) {
		return 0, io.EOF
	}
	if s.at-s.token > maxTag && s.text[s.token] == '<' && s.text[s.token+1] != '!' && s.text[s.token+1] != '?' {
		return 0, fmt.Errorf("%w: a tag of more than %d bytes", ErrTooMuch, maxTag)
	}
	s.at++
	return s.text[s.at-1], nil
}

// open is an element whose end is not read yet.
type open struct {
	node       *Node
	raw        xml.Name          // as it is written, prefix and name
	namespaces map[string]string // prefixes in force; "" is the default
	text       [2]strings.Builder
	solid      bool // its text is not white space alone
}

// read reads the tree.
func (d *Document) read() error {
	from := &source{text: d.Text}
	decoder := xml.NewDecoder(from)
	var stack []*open
	elements := 0
	for {
		from.token = int(decoder.InputOffset())
		token, err := decoder.RawToken()
		raw := d.Text[from.token:decoder.InputOffset()]
		switch {
		case err == io.EOF && d.Root != nil && len(stack) == 0:
			return nil
		case err == io.EOF && d.Root == nil:
			return errors.New("there is no XML element in it")
		case err == io.EOF, err != nil && from.at == len(from.text) && !errors.Is(err, ErrTooMuch):
			return errors.New("it ends too early: it was cut short")
		case err != nil:
			return readable(err)
		}
		var parent *open
		if len(stack) > 0 {
			parent = stack[len(stack)-1]
		}
		switch token := token.(type) {
		case xml.StartElement:
			switch elements++; {
			case elements > maxElements:
				return fmt.Errorf("%w: more than %d elements", ErrTooMuch, maxElements)
			case len(stack) == maxDepth:
				return fmt.Errorf("%w: elements nested more than %d deep", ErrTooMuch, maxDepth)
			case parent == nil && d.Root != nil:
				return d.damage(from.token, "a second document behind the first")
			case parent != nil && parent.solid:
				return d.damage(from.token, "text beside elements")
			}
			o, err := newElement(token, raw, parent)
			if err != nil {
				return fmt.Errorf("line %d is damaged: %w", d.line(from.token), err)
			}
			o.node.From = from.token
			if parent == nil {
				d.Root = o.node
			} else {
				parent.node.Children = append(parent.node.Children, o.node)
			}
			stack = append(stack, o)
		case xml.EndElement:
			if parent == nil || parent.raw != token.Name {
				return d.damage(from.token, "an end tag of %s without its start tag", control.Quote(token.Name.Local))
			}
			parent.node.To = int(decoder.InputOffset())
			if len(parent.node.Children) == 0 {
				parent.node.text = Text{parent.text[0].String(), parent.text[1].String()}
			}
			stack = stack[:len(stack)-1]
		case xml.CharData:
			cdata := strings.HasPrefix(raw, "<![CDATA[")
			solid := cdata || strings.Trim(raw, " \t\r\n") != ""
			switch {
			case solid && parent == nil:
				return d.damage(from.token, "text outside of the document")
			case solid && len(parent.node.Children) > 0:
				return d.damage(from.token, "text beside elements")
			case !cdata && strings.Count(raw, "\uFFFD") != strings.Count(string(token), "\uFFFD"):
				return d.damage(from.token, "a reference to a character that XML does not have")
			}
			if cdata {
				d.note(CDATA)
			}
			if parent != nil && len(parent.node.Children) == 0 {
				parent.solid = parent.solid || solid
				parent.text[0].WriteString(asIs(raw, string(token)))
				parent.text[1].Write(token)
			}
		case xml.Comment:
			d.note(Comment)
		case xml.ProcInst:
			after := raw[len("<?")+len(token.Target):]
			if strings.EqualFold(token.Target, "xml") || strings.Contains(token.Target, ":") || after != "?>" && strings.Trim(after[:1], " \t\r\n") != "" {
				return d.damage(from.token, "a processing instruction that XML does not allow: %s", control.Quote(token.Target))
			}
			d.note(Instruction)
		case xml.Directive:
			return errors.New("it has a document type declaration, which AD RMS never writes")
		}
	}
}

// readable says for administrators what encoding/xml says for programmers.
func readable(err error) error {
	if syntax := new(xml.SyntaxError); errors.As(err, &syntax) {
		return fmt.Errorf("line %d is damaged: it is no XML (%s)", syntax.Line, control.Quote(syntax.Msg))
	}
	return err
}

func (d *Document) note(what string) {
	if !slices.Contains(d.Passed, what) {
		d.Passed = append(d.Passed, what)
	}
}

// asIs returns the text of a token with the carriage returns that stand in it.
func asIs(raw, normalised string) string {
	if content, ok := strings.CutPrefix(raw, "<![CDATA["); ok {
		return strings.TrimSuffix(content, "]]>")
	}
	if !strings.Contains(raw, "\r") {
		return normalised
	}
	token, err := xml.NewDecoder(strings.NewReader(strings.ReplaceAll(raw, "\r", "&#xD;"))).RawToken()
	if err != nil {
		panic(err) // it was read before, with line ends of another spelling
	}
	return string(token.(xml.CharData))
}

// newElement resolves the prefixes of a start tag.
func newElement(tag xml.StartElement, raw string, parent *open) (*open, error) {
	o := &open{node: &Node{}, raw: tag.Name}
	if parent != nil {
		o.namespaces = parent.namespaces
	}
	if err := checkTag(tag, raw); err != nil {
		return nil, err
	}
	declared := map[string]string{}
	for _, a := range tag.Attr {
		prefix := a.Name.Local
		switch {
		case a.Name.Space == "" && prefix == "xmlns":
			prefix = ""
		case a.Name.Space != "xmlns":
			o.node.Attrs = append(o.node.Attrs, Attr{a.Name.Space, a.Name.Local, a.Value})
			continue
		case prefix == "xml" || prefix == "xmlns" || a.Value == "":
			return nil, fmt.Errorf("the prefix %s can't be declared for %s", control.Quote(prefix), control.Quote(a.Value))
		}
		if _, twice := declared[prefix]; twice {
			return nil, fmt.Errorf("the prefix %s is declared twice", control.Quote(prefix))
		}
		declared[prefix] = a.Value
	}
	if len(declared) > 0 {
		all := map[string]string{}
		maps.Copy(all, o.namespaces)
		maps.Copy(all, declared)
		if o.namespaces = all; len(all) > maxPrefixes {
			return nil, fmt.Errorf("%w: more than %d namespaces", ErrTooMuch, maxPrefixes)
		}
	}
	space, err := o.namespace(tag.Name.Space)
	if err != nil {
		return nil, err
	}
	if o.node.Name = tag.Name.Local; space != "" {
		o.node.Name = tag.Name.Space + ":" + tag.Name.Local
	}
	for i := range o.node.Attrs {
		a := &o.node.Attrs[i]
		if a.Space != "" { // an attribute without prefix is in no namespace
			if a.Space, err = o.namespace(a.Space); err != nil {
				return nil, err
			}
		}
		if slices.ContainsFunc(o.node.Attrs[:i], func(b Attr) bool { return b.Space == a.Space && b.Name == a.Name }) {
			return nil, fmt.Errorf("the attribute %s occurs twice in an element", control.Quote(a.Name))
		}
		if mode := strings.Trim(a.Value, " "); a.Space == XMLNamespace && a.Name == "space" && mode != "preserve" && mode != "default" {
			return nil, fmt.Errorf("xml:space is %s, expected preserve or default", control.Quote(a.Value))
		}
	}
	return o, nil
}

// namespace returns what a prefix is declared for.
func (o *open) namespace(prefix string) (string, error) {
	if prefix == "xml" {
		return XMLNamespace, nil
	}
	if space := o.namespaces[prefix]; space != "" || prefix == "" {
		return space, nil
	}
	return "", fmt.Errorf("the prefix %s is not declared", control.Quote(prefix))
}

// checkTag checks the spelling of a start tag: its names and its attributes.
func checkTag(tag xml.StartElement, raw string) error {
	if len(tag.Attr) > maxAttrs {
		return fmt.Errorf("%w: more than %d attributes in an element", ErrTooMuch, maxAttrs)
	}
	names, values := []xml.Name{tag.Name}, ""
	for _, a := range tag.Attr {
		names, values = append(names, a.Name), values+a.Value
	}
	for _, name := range names {
		if first, _ := utf8.DecodeRuneInString(name.Local); strings.Contains(name.Local, ":") || first != '_' && !unicode.IsLetter(first) {
			return fmt.Errorf("the name %s has a colon where none can stand", control.Quote(name.Local))
		}
	}
	switch {
	case strings.ContainsAny(values, "\t\r\n"):
		return errors.New("an attribute's value has a tab or a line end")
	case strings.Count(raw, "\uFFFD") != strings.Count(values, "\uFFFD"):
		return errors.New("a reference to a character that XML does not have")
	}
	var quote byte
	for i := range len(raw) {
		switch b := raw[i]; {
		case quote == 0 && (b == '"' || b == '\''):
			quote = b
		case quote != 0 && b == quote:
			if quote = 0; !strings.ContainsRune(" \t\r\n/>", rune(raw[i+1])) {
				return errors.New("two attributes have no white space between them")
			}
		}
	}
	return nil
}

// Text returns the text of an element without child elements, line ends
// normalised.
func (n *Node) Text() string { return n.Readings().Normalised }

// Readings returns that text in both readings.
func (n *Node) Readings() Text {
	if n == nil {
		return Text{}
	}
	return n.text
}

// Base64 decodes the text as base64 with padding, in which there may be white
// space.
func (n *Node) Base64() ([]byte, error) {
	text := strings.NewReplacer(" ", "", "\t", "").Replace(n.Text()) // line ends the decoder skips itself
	return base64.StdEncoding.Strict().DecodeString(text)
}

// Attr returns the value of the attribute in no namespace, or "".
func (n *Node) Attr(name string) string { return n.AttrIn("", name) }

// AttrIn returns the value of the attribute in the namespace, or "".
func (n *Node) AttrIn(space, name string) string {
	if n != nil {
		for _, a := range n.Attrs {
			if a.Name == name && a.Space == space {
				return a.Value
			}
		}
	}
	return ""
}

// All returns the child elements of that name, in their order.
func (n *Node) All(name string) []*Node {
	if n == nil {
		return nil
	}
	var all []*Node
	for _, child := range n.Children {
		if child.Name == name {
			all = append(all, child)
		}
	}
	return all
}

// HasContent reports whether there is anything in the element.
func (n *Node) HasContent() bool { return n != nil && (len(n.Children) > 0 || n.Text() != "") }

// One follows the path down; each step must be the only child element of its
// name. It returns nil if there is none, or more than one.
func (n *Node) One(path ...string) *Node {
	for _, name := range path {
		found := n.All(name)
		if len(found) != 1 {
			return nil
		}
		n = found[0]
	}
	return n
}

// TextOf returns the text of the element that [Node.One] finds, or "".
func (n *Node) TextOf(path ...string) string { return n.One(path...).Text() }
