// SPDX-License-Identifier: Apache-2.0

package xmltree

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf16"

	"keyferry/pkg/control"
)

// encoding is how the characters of a source were written down. The zero
// value is UTF-8 without a byte order mark.
type encoding struct {
	name string // as a declaration names it
	mark int    // bytes of the byte order mark
}

const (
	utf8Name  = "utf-8"
	utf16Name = "utf-16"
)

// decode returns the characters of data, in UTF-8 without byte order mark.
func decode(data []byte) (string, encoding, error) {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(data, []byte{0xEF, 0xBB, 0xBF}):
		return string(data[3:]), encoding{utf8Name, 3}, nil
	case bytes.HasPrefix(data, []byte{0xFF, 0xFE}):
		order = binary.LittleEndian
	case bytes.HasPrefix(data, []byte{0xFE, 0xFF}):
		order = binary.BigEndian
	default:
		return string(data), encoding{utf8Name, 0}, nil
	}
	text, err := decodeUTF16(data[2:], order)
	return text, encoding{utf16Name, 2}, err
}

func decodeUTF16(data []byte, order binary.ByteOrder) (string, error) {
	if len(data)%2 != 0 {
		return "", errors.New("it begins as UTF-16 but has an odd number of bytes")
	}
	var text strings.Builder
	text.Grow(len(data) / 2)
	for i := 0; i < len(data); i += 2 {
		r := rune(order.Uint16(data[i:]))
		if utf16.IsSurrogate(r) {
			if i += 2; i < len(data) {
				r = utf16.DecodeRune(r, rune(order.Uint16(data[i:])))
			}
			if r < 0x10000 {
				return "", fmt.Errorf("half a UTF-16 surrogate pair before byte %d", i)
			}
		}
		text.WriteRune(r)
	}
	return text.String(), nil
}

// SourceRange returns where the part from..to of the document's Text lies in
// the bytes that were given to [Parse].
func (d *Document) SourceRange(from, to int) (int, int) {
	return d.sourceOffset(from), d.sourceOffset(to)
}

func (d *Document) sourceOffset(at int) int {
	if d.encoding.name != utf16Name {
		return d.encoding.mark + at
	}
	units := 0
	for _, r := range d.Text[:at] {
		units += utf16.RuneLen(r)
	}
	return d.encoding.mark + 2*units
}

var declared = regexp.MustCompile(`\sencoding\s*=\s*["']([^"']*)["']`)

// checkDeclaration compares the encoding that an XML declaration names with
// the one that the document is in; "" takes any.
func checkDeclaration(declaration, encoding string) error {
	found := declared.FindStringSubmatch(" " + declaration)
	if found == nil || encoding == "" || strings.EqualFold(found[1], encoding) {
		return nil
	}
	return fmt.Errorf("it declares the encoding %s but is written in %s", control.Quote(found[1]), encoding)
}
