// SPDX-License-Identifier: Apache-2.0

package tenant

import (
	"slices"
	"strings"
	"testing"
)

// TestCommandIsReadable: the session is one readable argument that Windows takes, with
// no quote to be escaped and nothing that is decoded and run; neither it nor the
// kit's command loads a profile.
func TestCommandIsReadable(t *testing.T) {
	args := arguments()
	at := slices.Index(args, "-Command")
	if at != len(args)-2 || !slices.Contains(args, "-NoProfile") || !slices.Contains(args, "-NonInteractive") {
		t.Fatalf("arguments: %.300q", args)
	}
	whole := strings.Join(args, " ")
	if len(whole) > 32000 || strings.Contains(whole, `"`) {
		t.Errorf("%d characters, %d double quotes", len(whole), strings.Count(whole, `"`))
	}
	for _, never := range []string{"-EncodedCommand", "ScriptBlock", "Invoke-Expression"} {
		if strings.Contains(whole, never) {
			t.Errorf("it has %s", never)
		}
	}
	kit := Kit{Cloud: "public"}
	if got := kit.Command(); !strings.Contains(got, "powershell.exe -NoProfile -ExecutionPolicy RemoteSigned -File") {
		t.Errorf("the kit's command: %s", got)
	}
}
