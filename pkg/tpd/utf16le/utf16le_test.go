// SPDX-License-Identifier: Apache-2.0

package utf16le

import (
	"slices"
	"testing"
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
