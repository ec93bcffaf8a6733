// SPDX-License-Identifier: Apache-2.0

package xmltree

import (
	"encoding/xml"
	"errors"
	"fmt"
	"strings"
)

// maxName bounds a name with letters outside of ASCII, in bytes.
const maxName = 1 << 10

// name reads a name and returns where the colon is that ends its prefix, or 0.
func (p *parser) name() (name string, colon int, err error) {
	rest := p.s[p.at:]
	end := 0
	for end < len(rest) && isName[rest[end]] {
		end++
	}
	if end == 0 || end == len(rest) || rest[end] == ':' || rest[end] >= 0x80 || !isNameStart(rest[0]) {
		return p.oddName()
	}
	p.at += end
	return rest[:end], 0, nil
}

// oddName reads a name that has a colon or letters outside of ASCII, if it is
// one at all.
func (p *parser) oddName() (name string, colon int, err error) {
	start := p.at
	for p.at < len(p.s) && (isName[p.s[p.at]] || p.s[p.at] == ':' || p.s[p.at] >= 0x80) {
		p.at++
	}
	name = p.s[start:p.at]
	prefix, local, prefixed := strings.Cut(name, ":")
	switch {
	case p.at == len(p.s):
		return "", 0, errEnd
	case len(name) > maxName && !isASCII(name):
		return "", 0, fmt.Errorf("a name with letters outside of ASCII has more than %d bytes", maxName)
	case prefixed && (!isNamed(prefix) || !isNamed(local) || strings.Contains(local, ":")):
		return "", 0, errors.New("a name has a colon in the wrong place")
	case prefixed:
		return name, len(prefix), nil
	case isNamed(name):
		return name, 0, nil
	case !isASCII(name):
		return "", 0, errors.New("a name has a character that no name has")
	}
	p.at = start
	return "", 0, p.expected("a name")
}

// isNamed reports whether a word of such bytes, without a colon, is a name. Which
// letters there are outside of ASCII, encoding/xml knows: those of the fourth
// edition of XML 1.0, as in .NET.
func isNamed(word string) bool {
	if isASCII(word) {
		return word != "" && isNameStart(word[0])
	}
	_, err := xml.NewDecoder(strings.NewReader("<" + word + ">")).RawToken()
	return err == nil
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= 0x80 }) < 0
}
