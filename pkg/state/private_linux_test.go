// SPDX-License-Identifier: Apache-2.0

package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyferry/pkg/control"
)

// A state directory is opened by its owner alone, and only while nobody else can enter
// it, read its keys or change its files.
func TestPrivate(t *testing.T) {
	const stranger = 12345
	chmod := func(name string, mode fs.FileMode) func(string) error {
		return func(dir string) error { return os.Chmod(filepath.Join(dir, name), mode) }
	}
	chown := func(names ...string) func(string) error {
		return func(dir string) error {
			var errs []error
			for _, name := range names {
				errs = append(errs, os.Chown(filepath.Join(dir, name), stranger, -1))
			}
			return errors.Join(errs...)
		}
	}
	for name, c := range map[string]struct {
		change func(dir string) error
		want   control.Control // none: it opens
		hint   string
		root   bool
	}{
		"as it was made":              {chmod("state.json", 0o600), control.Control{}, "", false},
		"a public file":               {chmod("card.json", 0o644), control.Control{}, "", false},
		"a link in it":                {func(dir string) error { return os.Symlink("state.json", filepath.Join(dir, "link")) }, control.Control{}, "", false},
		"open to all":                 {chmod("", 0o777), control.StateMode, "chmod -R go= ", false},
		"open to a group":             {chmod("", 0o750), control.StateMode, "chmod -R go= ", false},
		"a signing key for all":       {chmod("identity/sign.pem", 0o666), control.StateMode, "chmod -R go= ", false},
		"a signing key for a group":   {chmod("identity/sign.pem", 0o640), control.StateMode, "begin anew", false},
		"a directory of keys for all": {chmod("identity", 0o755), control.StateMode, "chmod -R go= ", false},
		"a ledger for all":            {chmod("ledger.jsonl", 0o666), control.StateMode, "chmod -R go= ", false},
		"root in somebody's":          {chown("", "state.json", "identity"), control.StateOwner, "run it without sudo, as user 12345", true},
		"what another left in it":     {chown("ledger.head"), control.StateOwner, "`sudo chown -R 0 /", true},
	} {
		if c.root && os.Geteuid() != 0 {
			t.Logf("%s: needs root", name)
			continue
		}
		dir := withPins(t)
		if err := c.change(dir); err != nil {
			t.Fatal(err)
		}
		s, err := Open(dir, Offline, asSigned)
		if err == nil {
			err = s.Close()
		}
		if c.want.ID == "" && err != nil || c.want.ID != "" && !control.Is(err, c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want.ID)
			continue
		}
		var refusal *control.Refusal
		if errors.As(err, &refusal) && !strings.Contains(refusal.Hint, c.hint) {
			t.Errorf("%s: the hint is %q", name, refusal.Hint)
		}
		if link := dir + "-link"; c.want.ID != "" { // a link to it changes nothing
			if err := os.Symlink(dir, link); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(link, Offline, asSigned); !control.Is(err, c.want) {
				t.Errorf("%s, by a link: got %v", name, err)
			}
		}
	}
}
