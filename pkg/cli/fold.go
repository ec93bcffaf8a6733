// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"strings"

	"keyferry/pkg/control"
	"keyferry/pkg/sheet"
)

// Width is that of what people read on a terminal, in columns.
const Width = 80

// Fold breaks text between words into lines that fit beside an indent of so many
// columns, which it leaves to the caller. A word that is too long stays whole:
// it may be a URL or a path.
func Fold(text string, indent int) string {
	return sheet.Fold(text, Width-indent)
}

// Block is a label and its value, in lines of 80 columns: a fingerprint fits beside
// the label, and a longer word is broken.
func Block(label, value string) []string {
	const labelWidth = 9
	var lines []string
	for line := range strings.SplitSeq(sheet.Wrap(control.Plain(value), Width-labelWidth), "\n") {
		lines = append(lines, fmt.Sprintf("%-*s%s", labelWidth, label, line))
		label = ""
	}
	return lines
}

// SetIn is Fold for a text whose first line stands behind that many columns: the
// others are indented by them.
func SetIn(text string, indent int) string {
	return strings.ReplaceAll(Fold(text, indent), "\n", "\n"+strings.Repeat(" ", indent))
}
