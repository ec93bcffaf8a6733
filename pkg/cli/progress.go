// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"
)

const (
	progressFrom  = 8  // fewer items are not worth a bar
	progressWidth = 40 // columns of the bar
)

// Progress shows a bar on a terminal's line when there is much to do. It is
// called before each item with how many are done, and at the end, when it wipes
// the line.
func (o *IO) Progress(what string, done, total int) {
	f, ok := o.stderr.(*os.File)
	if total < progressFrom || !ok || !term.IsTerminal(int(f.Fd())) {
		return
	}
	wipe := "\r" + strings.Repeat(" ", Width-1) + "\r" // every terminal knows it, a console of old Windows too
	if done >= total {
		fmt.Fprint(f, wipe)
		return
	}
	full := progressWidth * done / total
	fmt.Fprintf(f, "%s%s: %s [%s%s] %d of %d", wipe, o.program, what, strings.Repeat("=", full), strings.Repeat(" ", progressWidth-full), done, total)
}
