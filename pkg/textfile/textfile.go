// SPDX-License-Identifier: Apache-2.0

// Package textfile reads small text files as editors and shells write them:
// Windows PowerShell 5.1 writes UTF-16, Notepad puts a byte order mark in front.
package textfile

import (
	"bytes"
	"encoding/binary"
	"errors"
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
	errNUL      = errors.New("it holds a byte of zero: it is no text, or UTF-16 without a byte order mark")
	errNotUTF8  = errors.New("it is not UTF-8: save it as UTF-8 or as Unicode text")
	errNotUTF16 = errors.New("its byte order mark says UTF-16, but it is not")
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
	units := data[2:]
	if len(units)%2 != 0 {
		return nil, errNotUTF16
	}
	text := make([]byte, 0, len(units)/2*3) // never moved, which would leave a copy
	for ; len(units) > 0; units = units[2:] {
		r := rune(order.Uint16(units))
		if utf16.IsSurrogate(r) && len(units) >= 4 {
			if r = utf16.DecodeRune(r, rune(order.Uint16(units[2:]))); r != utf8.RuneError {
				units = units[2:]
			}
		}
		if utf16.IsSurrogate(r) || r == utf8.RuneError {
			clear(text)
			return nil, errNotUTF16
		}
		text = utf8.AppendRune(text, r)
	}
	return check(text)
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
