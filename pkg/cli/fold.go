// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"

	"keyferry/pkg/control"
	"keyferry/pkg/sheet"
)

// Width is that of what people read on a terminal, in columns.
const Width = 80

// copied finds a line that is a command, or holds a path, to be copied as it is.
var copied = regexp.MustCompile(`^(Next[^:]*: |Carry on the stick: |az |if \(\()`)

// Fold breaks text between words into lines that fit beside an indent of so many
// columns, which it leaves to the caller. What people copy stays whole, even where it
// is too long: a URL, a path, a command in backquotes or on a line of its own.
func Fold(text string, indent int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i, line := range lines {
		if !copied.MatchString(line) {
			lines[i] = sheet.Fold(line, Width-indent)
		}
	}
	return strings.Join(lines, "\n")
}

// fit folds a line at the width of the terminal that it is written to; elsewhere it stays
// as it is, and so does the row of a table. The head says whose line it is.
func fit(to io.Writer, head, line string) string {
	f, ok := to.(*os.File)
	if !ok {
		return head + line
	}
	text := strings.TrimLeft(line, " ")
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width == 0 || utf8.RuneCountInString(head+line) <= width || strings.Contains(text, "  ") || copied.MatchString(text) {
		return head + line
	}
	indent := strings.Repeat(" ", len(line)-len(text))
	return indent + strings.ReplaceAll(sheet.Fold(head+text, width-len(indent)-2), "\n", "\n  "+indent)
}

// Block is a label and its value, in lines of 80 columns: a fingerprint fits beside
// the label, and a longer word is broken.
func Block(label, value string) []string {
	const labelWidth = 9
	var lines []string
	for part := range strings.SplitSeq(value, "\n") {
		for line := range strings.SplitSeq(sheet.Wrap(control.Plain(part), Width-labelWidth), "\n") {
			lines = append(lines, fmt.Sprintf("%-*s%s", labelWidth, label, line))
			label = ""
		}
	}
	return lines
}

// SetIn is Fold for a text whose first line stands behind that many columns: the
// others are indented by them.
func SetIn(text string, indent int) string {
	return strings.ReplaceAll(Fold(text, indent), "\n", "\n"+strings.Repeat(" ", indent))
}
