// SPDX-License-Identifier: Apache-2.0

package xmltree

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"keyferry/pkg/control"
)

// encoding is how the characters of a source were written down. The zero
// value is UTF-8 without a byte order mark.
type encoding struct {
	name  string    // that only this one has, in lower case; "" for characters that were never bytes
	mark  int       // bytes of the byte order mark
	order byteOrder // nil but for UTF-16
}

// isCalled reports whether a declaration may name the encoding so. .NET writes
// the byte order into the name or leaves it out.
func (e encoding) isCalled(name string) bool {
	name = strings.ToLower(name)
	return name == e.name || e.order != nil && slices.Contains([]string{"utf-16", "unicode", "iso-10646-ucs-2"}, name)
}

type byteOrder interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

// decode returns the characters of data, in UTF-8 without byte order mark.
func decode(data []byte) (string, encoding, error) {
	switch {
	case bytes.HasPrefix(data, []byte{0xEF, 0xBB, 0xBF}):
		return stringOf(data[3:]), encoding{"utf-8", 3, nil}, nil
	case bytes.HasPrefix(data, []byte{0xFF, 0xFE}):
		return decodeUTF16(data, encoding{"utf-16le", 2, binary.LittleEndian})
	case bytes.HasPrefix(data, []byte{0xFE, 0xFF}):
		return decodeUTF16(data, encoding{"utf-16be", 2, binary.BigEndian})
	case bytes.HasPrefix(data, []byte{'<', 0}):
		return decodeUTF16(data, encoding{"utf-16le", 0, binary.LittleEndian})
	case bytes.HasPrefix(data, []byte{0, '<'}):
		return decodeUTF16(data, encoding{"utf-16be", 0, binary.BigEndian})
	}
	return stringOf(data), encoding{"utf-8", 0, nil}, nil
}

func decodeUTF16(data []byte, enc encoding) (string, encoding, error) {
	if len(data)%2 != 0 {
		return "", enc, errors.New("it begins as UTF-16 but has an odd number of bytes")
	}
	text := make([]byte, 0, len(data)/2) // enough for ASCII
	for i := enc.mark; i < len(data); i += 2 {
		r := rune(enc.order.Uint16(data[i:]))
		if utf16.IsSurrogate(r) {
			if i += 2; i < len(data) {
				r = utf16.DecodeRune(r, rune(enc.order.Uint16(data[i:])))
			}
			if r < 0x10000 {
				return "", enc, fmt.Errorf("half a UTF-16 surrogate pair before byte %d", i)
			}
		}
		text = utf8.AppendRune(text, r)
	}
	return stringOf(text), enc, nil
}

// Encode writes text as the document's source is written.
func (d *Document) Encode(text string) []byte {
	if d.encoding.order == nil {
		return []byte(text)
	}
	var b []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		b = d.encoding.order.AppendUint16(b, unit)
	}
	return b
}

// SourceRange returns where the part from..to of the document's Text lies in
// the bytes that were given to [Parse].
func (d *Document) SourceRange(from, to int) (int, int) {
	return d.sourceOffset(from), d.sourceOffset(to)
}

func (d *Document) sourceOffset(at int) int {
	if d.encoding.order == nil {
		return d.encoding.mark + at
	}
	units := 0
	for _, r := range d.Text[:at] {
		units += utf16.RuneLen(r)
	}
	return d.encoding.mark + 2*units
}

// declaration reads <?xml version="1.0" encoding="…" standalone="…"?>, which may
// be absent. The encoding that it names must be the document's, if that has one.
func (p *parser) declaration() error {
	const start, end = "<?xml", "?>"
	if !strings.HasPrefix(p.s, start) || len(p.s) > len(start) && isName[p.s[len(start)]] {
		return nil
	}
	p.at = len(start)
	for _, item := range []struct {
		name    string
		needed  bool
		accepts func(value string) bool
	}{
		{"version", true, func(value string) bool { return value == "1.0" }},
		{"encoding", false, func(value string) bool { return value != "" }},
		{"standalone", false, func(value string) bool { return value == "yes" || value == "no" }},
	} {
		if before := p.at; !p.space() || !strings.HasPrefix(p.s[p.at:], item.name) {
			p.at = before
			if item.needed {
				return errors.New("the XML declaration has no version")
			}
			continue
		}
		name, _, value, err := p.attribute()
		if err != nil {
			return fmt.Errorf("the XML declaration: %w", err)
		}
		if name != item.name || !item.accepts(value) {
			return fmt.Errorf("the XML declaration has the %s %s", name, control.Quote(value))
		}
		if enc := p.d.encoding; item.name == "encoding" && enc.name != "" && !enc.isCalled(value) {
			return fmt.Errorf("it declares the encoding %s but is written in %s", control.Quote(value), enc.name)
		}
	}
	p.space()
	if !strings.HasPrefix(p.s[p.at:], end) {
		return errors.New("the XML declaration does not end as it should")
	}
	p.at += len(end)
	return nil
}
