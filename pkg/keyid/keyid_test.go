// SPDX-License-Identifier: Apache-2.0

package keyid

import (
	"errors"
	"strings"
	"testing"

	"keyferry/pkg/control"
)

func TestCheck(t *testing.T) {
	for _, good := range []string{"a", "0", "a-", "0-9", "contoso-slc-2", "con-1", "console", "aux2", "com", "com10", "lpt", "nul-", "prn0", strings.Repeat("k", 127)} {
		if err := Check("key identifier", good); err != nil || !Valid(good) {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "-", "-a", "--yes", "con", "prn", "aux", "nul", "com0", "com1", "com9", "lpt0", "lpt1", "lpt9", strings.Repeat("k", 128), "Contoso", "a_b", "a.b", "a/b", "..", "a b", "a\n", "\na", "a\x00", "ключ", "ſ", "a\xff"} {
		if err := Check("key identifier", bad); !control.Is(err, control.CommandLine) || Valid(bad) {
			t.Errorf("%q: got %v, want %s", bad, err, control.CommandLine.ID)
		}
	}
}

// What is refused is quoted, and what it may be is said.
func TestCheckSays(t *testing.T) {
	err := Check("name", "a\x1b[2J")
	if err == nil || !strings.Contains(err.Error(), `"a\x1b[2J" can't be a name`) {
		t.Errorf("got %v", err)
	}
	if r := new(control.Refusal); !errors.As(Check("name", "Büro"), &r) || !strings.Contains(r.Hint, "lower-case letters (a to z), digits and dashes") {
		t.Errorf("the hint is %q", r.Hint)
	}
}

func TestIsDevice(t *testing.T) {
	for _, device := range []string{"nul", "NUL", "aux.txt", "Con .x.y", "com1", "LPT9.log", "COM\u00b9", "CONIN$", "conout$", "prn "} {
		if !IsDevice(device) {
			t.Errorf("%q is no device", device)
		}
	}
	for _, file := range []string{"", ".", "nul-1", "x.nul", "com", "com10", "console", "\u00b9", ".nul.part"} {
		if IsDevice(file) {
			t.Errorf("%q is a device", file)
		}
	}
}
