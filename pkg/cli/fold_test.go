// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strings"
	"testing"
)

func TestFold(t *testing.T) {
	long := strings.Repeat("x", Width)
	for text, want := range map[string]string{
		"":                        "",
		" a  b\n":                 "a b",
		"a " + long + " b":        "a\n" + long + "\nb",
		strings.Repeat("ab ", 26): strings.TrimSpace(strings.Repeat("ab ", 25)) + "\nab", // 74 columns and no more
	} {
		if got := Fold(text, 4); got != want {
			t.Errorf("%q: got %q", text, got)
		}
	}
}
