// SPDX-License-Identifier: Apache-2.0

package xmltree

import (
	"errors"
	"fmt"
	"strings"

	"keyferry/internal/cores"
	"keyferry/pkg/control"
)

// parser is one pass over a document: s[:at] is done. It keeps little other state
// than the elements that are open.
type parser struct {
	d        *Document
	s        string
	at       int
	open     [maxDepth]int32 // from the root to the innermost open element, as indexes into d.elements
	depth    int
	prefixes []prefix // declared by open elements, innermost last
	raw      []int32  // elements whose text is not rewritten yet

	inDefault bool // names without prefix are in a namespace
	passed    int  // how many elements there were at the last comment or instruction
}

// prefix is a declared prefix of a namespace, or the default one.
type prefix struct {
	name, uri string // either may be ""
	depth     int    // of the element that declares it
}

var (
	errEnd     = errors.New("unexpected EOF: it was cut short")
	errBeside  = errors.New("text stands beside elements")
	errOutside = errors.New("text stands outside of the document")
)

// document reads all of the text.
func (p *parser) document() error {
	err := p.declaration()
	for err == nil && p.at < len(p.s) {
		err = p.next()
	}
	if err == nil {
		err = p.rewriteLong()
	}
	switch {
	case err != nil:
		return fmt.Errorf("at byte %d: %w", p.at, err)
	case p.depth > 0:
		return fmt.Errorf("at byte %d: %w", p.at, errEnd)
	case len(p.d.elements) == 0:
		return errors.New("there is no XML element in it")
	}
	return nil
}

// rewriteLong rewrites the long texts, on all cores. The first fault counts.
func (p *parser) rewriteLong() error {
	bad, errs := make([]int, len(p.raw)), make([]error, len(p.raw))
	cores.Each(len(p.raw), func() func(int) {
		return func(i int) {
			e := &p.d.elements[p.raw[i]]
			e.text, bad[i], errs[i] = rewritten(e.text)
		}
	})
	for i, err := range errs {
		if err != nil {
			p.at = int(p.d.elements[p.raw[i]].inner) + bad[i]
			return err
		}
	}
	return nil
}

// next reads a run of text and the tag after it.
func (p *parser) next() (err error) {
	start := p.at
	p.space()
	text, raw := "", false
	blank := p.at == len(p.s) || p.s[p.at] == '<'
	if !blank {
		if text, raw, p.at, err = readText(p.s, start); err != nil {
			return err
		}
		if p.depth == 0 {
			return errOutside
		}
	}
	if p.at+1 >= len(p.s) {
		if p.depth > 0 || p.at < len(p.s) {
			return errEnd
		}
		return nil
	}
	switch p.s[p.at+1] {
	case '/':
		if blank && start < p.at {
			text, raw, _, _ = readText(p.s, start) // white space alone has no faults
		}
		return p.endTag(text, raw, blank)
	case '!', '?':
		return p.markup(blank)
	}
	if !blank {
		return errBeside
	}
	return p.startTag()
}

// startTag reads <name attributes> or <name attributes/>.
func (p *parser) startTag() error {
	switch {
	case len(p.d.elements) == maxElements:
		return fmt.Errorf("more than %d elements", maxElements)
	case p.depth == maxDepth:
		return fmt.Errorf("elements are nested more than %d deep", maxDepth)
	case p.depth == 0 && len(p.d.elements) > 0:
		return errors.New("there is a second document after the first")
	}
	e := element{from: int32(p.at)}
	p.at++
	name, colon, err := p.name()
	if err != nil {
		return err
	}
	p.open[p.depth] = int32(len(p.d.elements))
	p.depth++
	empty := false
	if p.at < len(p.s) && p.s[p.at] != '>' { // it has no attributes, most often
		if e.attrs, err = p.attributes(); err != nil {
			return err
		}
		empty = p.take('/')
	}
	if e.name = name; colon > 0 || p.inDefault {
		if e.name, err = p.inNamespace(name, colon); err != nil {
			return err
		}
	}
	if !p.take('>') {
		return p.expected("> at the end of the tag of " + control.Quote(name))
	}
	e.inner = int32(p.at)
	p.d.elements = append(p.d.elements, e)
	if empty {
		p.close()
	}
	return nil
}

// endTag reads </name>, which ends an element whose last run of text is given,
// raw or rewritten.
func (p *parser) endTag(text string, raw, blank bool) error {
	if p.depth == 0 {
		return errors.New("an end tag has no start tag")
	}
	e := &p.d.elements[p.open[p.depth-1]]
	p.at += len("</")
	if rest := p.s[p.at:]; len(rest) > len(e.name) && rest[:len(e.name)] == e.name && rest[len(e.name)] == '>' && rest[0] != ':' {
		p.at += len(e.name) + 1
	} else if err := p.oddEndTag(e.name); err != nil {
		return err
	}
	if int(p.open[p.depth-1]) == len(p.d.elements)-1 {
		if p.passed == len(p.d.elements) {
			return errAmid
		}
		if e.text = text; raw {
			p.raw = append(p.raw, p.open[p.depth-1])
		}
	} else if !blank {
		return errBeside
	}
	p.close()
	return nil
}

// oddEndTag reads the rest of an end tag that has white space, or is not the
// one of the name as it is written.
func (p *parser) oddEndTag(want string) error {
	want = strings.TrimPrefix(want, ":")
	name, _, err := p.name()
	if err != nil {
		return err
	}
	if name != want {
		return fmt.Errorf("the element %s is closed by the end tag of %s", control.Quote(want), control.Quote(name))
	}
	p.space()
	if !p.take('>') {
		return p.expected("> at the end of the end tag of " + control.Quote(want))
	}
	return nil
}

// close ends the innermost open element.
func (p *parser) close() {
	p.depth--
	e := &p.d.elements[p.open[p.depth]]
	e.to, e.size = int32(p.at), int32(len(p.d.elements))-p.open[p.depth]
	for len(p.prefixes) > 0 && p.prefixes[len(p.prefixes)-1].depth > p.depth {
		p.prefixes = p.prefixes[:len(p.prefixes)-1]
		p.inDefault = p.namespace("") != ""
	}
}

// space passes over white space and reports whether there was any.
func (p *parser) space() bool {
	start := p.at
	for p.at < len(p.s) && isSpace(p.s[p.at]) {
		p.at++
	}
	return p.at > start
}

// take passes over the byte if it is the next one.
func (p *parser) take(b byte) bool {
	if p.at == len(p.s) || p.s[p.at] != b {
		return false
	}
	p.at++
	return true
}

// expected says what there should be.
func (p *parser) expected(what string) error {
	if p.at == len(p.s) {
		return errEnd
	}
	return fmt.Errorf("expected %s, found %s", what, control.Quote(p.s[p.at:p.at+1]))
}
