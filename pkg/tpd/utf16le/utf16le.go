// SPDX-License-Identifier: Apache-2.0

// Package utf16le encodes text as .NET hashes it: UTF-16, little-endian,
// without byte order mark.
package utf16le

import (
	"encoding/binary"
	"io"
	"unicode/utf16"
	"unicode/utf8"

	"keyferry/internal/words"
)

// Encode encodes UTF-8 text. It leaves no copy of the text behind but its
// result, so that the caller can clear a secret; that has its final capacity
// from the start.
func Encode(text []byte) []byte {
	b := make([]byte, 0, 2*len(text)) // a character takes at most twice its bytes in UTF-8
	for _, r := range string(text) {  // this conversion does not copy
		b = appendRune(b, r)
	}
	return b
}

func appendRune(b []byte, r rune) []byte {
	if r < 0x10000 {
		return binary.LittleEndian.AppendUint16(b, uint16(r))
	}
	high, low := utf16.EncodeRune(r)
	return binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(b, uint16(high)), uint16(low))
}

// Write encodes UTF-8 text, in pieces, into a hash: its Write returns no error.
func Write(hash io.Writer, text string) {
	const size = 2 << 10
	buf := make([]byte, size)
	for at, n := 0, 0; ; n = 0 {
		for at+8 <= len(text) && n+16 <= size {
			x := words.Load(text[at:])
			if x&0x8080808080808080 != 0 { // not ASCII
				r, length := utf8.DecodeRuneInString(text[at:])
				n = len(appendRune(buf[:n], r))
				at += length
				continue
			}
			binary.LittleEndian.PutUint64(buf[n:], spread(x&0xFFFFFFFF))
			binary.LittleEndian.PutUint64(buf[n+8:], spread(x>>32))
			at, n = at+8, n+16
		}
		hash.Write(buf[:n])
		if at+8 > len(text) {
			hash.Write(Encode([]byte(text[at:])))
			return
		}
	}
}

// spread puts a zero after each of the lower four bytes.
func spread(x uint64) uint64 {
	x = (x | x<<16) & 0x0000FFFF0000FFFF
	return (x | x<<8) & 0x00FF00FF00FF00FF
}
