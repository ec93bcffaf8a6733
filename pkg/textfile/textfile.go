// SPDX-License-Identifier: Apache-2.0

// Package textfile reads small text files as editors and shells write them:
// Windows PowerShell 5.1 writes UTF-16, Notepad puts a byte order mark in front.
package textfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// Byte order marks.
var (
	mark8    = []byte{0xEF, 0xBB, 0xBF}
	mark16LE = []byte{0xFF, 0xFE}
	mark16BE = []byte{0xFE, 0xFF}
)

var (
	errNUL     = errors.New("it holds a byte of zero: it is no text, or UTF-16 without a byte order mark")
	errNotUTF8 = errors.New("it is not UTF-8: save it as UTF-8 or as Unicode text")
)

// Decode returns data, of UTF-8 or of UTF-16 with a byte order mark, as UTF-8
// without the mark. It refuses anything else, and NUL. Where it converts, it
// clears data: that may be a secret.
func Decode(data []byte) ([]byte, error) {
	order := binary.ByteOrder(binary.LittleEndian)
	switch {
	case bytes.HasPrefix(data, mark16LE):
	case bytes.HasPrefix(data, mark16BE):
		order = binary.BigEndian
	default:
		return check(bytes.TrimPrefix(data, mark8))
	}
	defer clear(data)
	text, err := DecodeUTF16(data[2:], order)
	if err != nil {
		return nil, fmt.Errorf("its byte order mark says UTF-16, but it is not: %w", err)
	}
	return check(text)
}

// DecodeUTF16 returns UTF-16, without regard to a mark, as UTF-8. It leaves no copy of
// the text behind but its result.
func DecodeUTF16(data []byte, order binary.ByteOrder) ([]byte, error) {
	if len(data)%2 != 0 {
		return nil, errors.New("an odd number of bytes: it was cut short")
	}
	text := make([]byte, 0, len(data)/2*3) // never moved
	for i := 0; i < len(data); i += 2 {
		r := rune(order.Uint16(data[i:]))
		if utf16.IsSurrogate(r) {
			if i += 2; i < len(data) {
				r = utf16.DecodeRune(r, rune(order.Uint16(data[i:])))
			}
			if r < 0x10000 {
				clear(text)
				return nil, fmt.Errorf("half a surrogate pair before byte %d", i)
			}
		}
		text = utf8.AppendRune(text, r)
	}
	return text, nil
}

func check(text []byte) ([]byte, error) {
	switch {
	case bytes.IndexByte(text, 0) >= 0:
		clear(text)
		return nil, errNUL
	case !utf8.Valid(text):
		clear(text)
		return nil, errNotUTF8
	}
	return text, nil
}
