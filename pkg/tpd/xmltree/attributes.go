// SPDX-License-Identifier: Apache-2.0

package xmltree

import (
	"errors"
	"fmt"

	"keyferry/pkg/control"
)

// XMLNamespace is what XML itself declares the prefix xml for.
const XMLNamespace = "http://www.w3.org/XML/1998/namespace"

// attributes reads the attributes of a start tag up to its / or >.
func (p *parser) attributes() ([]Attr, error) {
	first, declared := len(p.d.attrs), len(p.prefixes)
	for p.space() {
		if p.at < len(p.s) && (p.s[p.at] == '>' || p.s[p.at] == '/') {
			break
		}
		if len(p.d.attrs)-first == maxAttrs {
			return nil, fmt.Errorf("more than %d attributes in an element", maxAttrs)
		}
		if len(p.d.attrs) == maxElements {
			return nil, fmt.Errorf("more than %d attributes", maxElements)
		}
		name, colon, value, err := p.attribute()
		if err != nil {
			return nil, err
		}
		switch {
		case name == "xmlns":
			err = p.declare("", value, declared)
		case colon > 0 && name[:colon] == "xmlns":
			err = p.declare(name[colon+1:], value, declared)
		case colon > 0: // the prefix may be declared by an attribute after it
			p.d.attrs = append(p.d.attrs, Attr{name[:colon], name[colon+1:], value})
		default:
			p.d.attrs = append(p.d.attrs, Attr{"", name, value})
		}
		if err != nil {
			return nil, err
		}
	}
	attrs := p.d.attrs[first:len(p.d.attrs):len(p.d.attrs)]
	if len(attrs) == 0 {
		return nil, nil
	}
	return attrs, p.resolve(attrs)
}

var errTwice = errors.New("an attribute occurs twice in an element")

// attribute reads name="value". The colon is that of the name, or 0.
func (p *parser) attribute() (name string, colon int, value string, err error) {
	if name, colon, err = p.name(); err != nil {
		return "", 0, "", err
	}
	p.space()
	if !p.take('=') {
		return "", 0, "", p.expected("= after the attribute " + control.Quote(name))
	}
	p.space()
	var quote byte
	switch {
	case p.take('"'):
		quote = '"'
	case p.take('\''):
		quote = '\''
	default:
		return "", 0, "", p.expected("a quote before the value of " + control.Quote(name))
	}
	if value, p.at, err = readValue(p.s, p.at, quote); err != nil {
		return "", 0, "", err
	}
	if !p.take(quote) {
		return "", 0, "", errEnd
	}
	return name, colon, value, nil
}

// declare binds a prefix, or with the name "" the default, which must be the
// only one of that name from p.prefixes[from] on: those of this element.
func (p *parser) declare(name, uri string, from int) error {
	if name == "xml" || name == "xmlns" || uri == "" && name != "" {
		return fmt.Errorf("the prefix %s can't be declared for %s", control.Quote(name), control.Quote(uri))
	}
	for _, other := range p.prefixes[from:] {
		if other.name == name {
			return errTwice
		}
	}
	if len(p.prefixes) == maxPrefixes {
		return fmt.Errorf("more than %d namespaces", maxPrefixes)
	}
	p.prefixes = append(p.prefixes, prefix{name, uri, p.depth})
	p.inDefault = p.namespace("") != ""
	return nil
}

// namespace returns what the prefix, or with "" the default, is declared for, or
// "". The innermost declaration wins.
func (p *parser) namespace(prefix string) string {
	for i := len(p.prefixes) - 1; i >= 0; i-- {
		if p.prefixes[i].name == prefix {
			return p.prefixes[i].uri
		}
	}
	if prefix == "xml" {
		return XMLNamespace
	}
	return ""
}

// inNamespace returns the name of an element that is in a namespace, see
// [Node.Name]. The colon is that of the name, or 0.
func (p *parser) inNamespace(name string, colon int) (string, error) {
	if colon == 0 {
		return ":" + name, nil
	}
	if p.namespace(name[:colon]) == "" {
		return "", undeclared(name[:colon])
	}
	return name, nil
}

func undeclared(prefix string) error {
	return fmt.Errorf("the prefix %s is not declared", control.Quote(prefix))
}

// resolve puts namespaces in the place of prefixes, and finds attributes that
// occur twice.
func (p *parser) resolve(attrs []Attr) error {
	for i := range attrs {
		if a := &attrs[i]; a.Space != "" {
			uri := p.namespace(a.Space)
			if uri == "" {
				return undeclared(a.Space)
			}
			a.Space = uri
		}
		for _, other := range attrs[:i] {
			if other.Name == attrs[i].Name && other.Space == attrs[i].Space {
				return errTwice
			}
		}
	}
	return nil
}
