// SPDX-License-Identifier: Apache-2.0

// Package utf16le encodes text as .NET hashes it: UTF-16, little-endian,
// without byte order mark.
package utf16le

import (
	"encoding/binary"
	"unicode/utf16"
)

// Encode encodes UTF-8 text. It leaves no copy of the text behind but its
// result, so that the caller can clear a secret; that has its final capacity
// from the start.
func Encode(text []byte) []byte {
	b := make([]byte, 0, 2*len(text)) // a character takes at most twice its bytes in UTF-8
	var units [2]uint16
	for _, r := range string(text) { // this conversion does not copy
		for _, unit := range utf16.AppendRune(units[:0], r) {
			b = binary.LittleEndian.AppendUint16(b, unit)
		}
	}
	return b
}
