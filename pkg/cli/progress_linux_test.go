// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"strings"
	"testing"
)

// A bar is for people at a terminal who wait: not for a file, not for little.
func TestProgress(t *testing.T) {
	x := openTerminal(t)
	x.untilShows("password: ") // else the question might come in between
	on := &IO{program: "offline", stderr: x.slave}
	on.Progress("inspecting", 1, progressFrom-1)
	on.Progress("inspecting", 10, 20)
	x.untilShows("inspecting [" + strings.Repeat("=", progressWidth/2) + strings.Repeat(" ", progressWidth/2) + "] 10 of 20")
	on.Progress("inspecting", 20, 20)
	x.until("the bar is wiped", func() bool { return strings.HasSuffix(x.seen(), "\r"+strings.Repeat(" ", Width-1)+"\r") })
	if strings.Contains(x.seen(), "1 of 7") {
		t.Errorf("there is a bar for little: %q", x.seen())
	}
	var file bytes.Buffer
	(&IO{program: "offline", stderr: &file}).Progress("inspecting", 10, 20)
	if file.Len() > 0 {
		t.Errorf("there is a bar in a file: %q", file.String())
	}
}
