// SPDX-License-Identifier: Apache-2.0

// Package words reads text by eight bytes at a time.
package words

// Load returns the first eight bytes of a text, the first one lowest. It is what
// encoding/binary does for a []byte; a string would be copied into one.
func Load(text string) uint64 {
	text = text[:8]
	return uint64(text[0]) | uint64(text[1])<<8 | uint64(text[2])<<16 | uint64(text[3])<<24 |
		uint64(text[4])<<32 | uint64(text[5])<<40 | uint64(text[6])<<48 | uint64(text[7])<<56
}
