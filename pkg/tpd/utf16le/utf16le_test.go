// SPDX-License-Identifier: Apache-2.0

package utf16le

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestEncode(t *testing.T) {
	text := []byte("aß€𝄞")
	if got := Encode(text); !slices.Equal(got, []byte{'a', 0, 0xDF, 0, 0xAC, 0x20, 0x34, 0xD8, 0x1E, 0xDD}) {
		t.Errorf("% x", got)
	}
	if n := testing.AllocsPerRun(100, func() { Encode(text) }); n != 1 {
		t.Errorf("%v allocations: a copy of the text is left behind", n)
	}
}

// In pieces, at whatever place a piece ends, comes out what comes out at once.
func TestWriteIsEncode(t *testing.T) {
	for _, unit := range []string{"a", "ab", "ß", "aß", "€", "abcdefg€", "𝄞", "a𝄞", "abcdefghijk𝄞ß"} {
		for n := range 40 {
			text := strings.Repeat("x", n) + strings.Repeat(unit, 3000/len(unit))
			for _, text := range []string{text, text + "y", text[:len(unit)*n]} {
				if !utf8.ValidString(text) {
					continue
				}
				var got bytes.Buffer
				Write(&got, text)
				if !bytes.Equal(got.Bytes(), Encode([]byte(text))) {
					t.Fatalf("%d times x, then %q: another encoding", n, unit)
				}
			}
		}
	}
}
