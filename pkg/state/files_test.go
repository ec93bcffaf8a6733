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
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/ledger"
)

// withPins makes a state directory with two files from the beginning and one that
// was kept later.
func withPins(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	err := Create(dir, meta(), Options{}, func(s *State) error {
		if err := errors.Join(s.WriteJSON("token.json", "a"), s.WriteJSON("card.json", "a")); err != nil {
			return err
		}
		return nothing(s)
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir, Offline, asSigned)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Keep(made, "trust", struct{}{}, "world", []byte("1")), s.SignLedger(), s.Close()); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestFilesAreHeldAgainstTheLedger(t *testing.T) {
	good := open(t, withPins(t))
	if got := good.Ledger.Files(); len(got) != 4 || got["world"] != fingerprint.Of([]byte("1")) {
		t.Errorf("the ledger pins %v", got)
	}
	if file, err := good.Kept("world"); err != nil || string(file) != "1" {
		t.Errorf("got %q, %v", file, err)
	}
	if _, err := good.Kept("none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	write := func(name, text string) func(string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600) }
	}
	for name, c := range map[string]struct {
		damage func(dir string) error
		file   string
	}{
		"a real ceremony":        {change(metaFile, `"rehearsal": true`, `"rehearsal": false`), metaFile},
		"another name":           {change(metaFile, "vault-room", "vault-doom"), metaFile},
		"another time":           {change(metaFile, "2026", "2025"), metaFile},
		"settings changed":       {write("token.json", `"b"`), "token.json"},
		"a pin swapped":          {write("world", "2"), "world"},
		"a pin gone":             {func(dir string) error { return os.Remove(filepath.Join(dir, "world")) }, "world"},
		"a card swapped":         {write("card.json", `"b"`), "card.json"},
		"the new one is another": {func(dir string) error { return errors.Join(write("world", "2")(dir), write("world.next", "3")(dir)) }, "world"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := withPins(t)
			if err := c.damage(dir); err != nil {
				t.Fatal(err)
			}
			_, err := Open(dir, Offline, asSigned)
			if !control.Is(err, control.StateDamaged) || !strings.Contains(err.Error(), filepath.Join(dir, c.file)+" is not") {
				t.Errorf("got %v, want %s that names %s", err, control.StateDamaged.ID, c.file)
			}
		})
	}
}

// What the ledger does not pin is no pin, even before the first one.
func TestUnknownFileIsNoPin(t *testing.T) {
	s := open(t, create(t, Options{}))
	if err := os.WriteFile(s.Path("world"), []byte("planted"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Kept("world"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if err := s.Keep(made, "trust", struct{}{}, "world", []byte("true")); err != nil {
		t.Fatal(err)
	}
	if file, err := s.Kept("world"); err != nil || string(file) != "true" {
		t.Errorf("got %q, %v", file, err)
	}
}

// A run that is killed while it replaces a file leaves the old or the new one.
func TestKeepIsTakenUp(t *testing.T) {
	for name, c := range map[string]struct {
		recorded bool
		want     string
	}{"before the record": {false, "1"}, "after the record": {true, "2"}} {
		t.Run(name, func(t *testing.T) {
			dir := withPins(t)
			s, err := Open(dir, Offline, asSigned)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(s.waiting("world"), []byte("2"), 0o600); err != nil {
				t.Fatal(err)
			}
			if c.recorded {
				if err := s.Ledger.Pin(made, "trust", struct{}{}, ledger.Files{"world": fingerprint.Of([]byte("2"))}); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, dir)
			if file, err := s.Kept("world"); err != nil || string(file) != c.want {
				t.Errorf("got %q, %v, want %s", file, err, c.want)
			}
			if _, err := os.Stat(s.waiting("world")); c.recorded && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("it still waits: %v", err)
			}
		})
	}
}

// A record lets a file go, and none can name a file elsewhere.
func TestPinsGoAndStayInside(t *testing.T) {
	dir := withPins(t)
	s := open(t, dir)
	if err := s.Ledger.Pin(made, "undone", struct{}{}, ledger.Files{"world": {}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Kept("world"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if err := s.Ledger.Pin(made, "trust", struct{}{}, ledger.Files{"../world": fingerprint.Of(nil)}); err != nil {
		t.Fatal(err)
	}
	if err := s.checkFiles(); !control.Is(err, control.LedgerBroken) {
		t.Errorf("got %v, want %s", err, control.LedgerBroken.ID)
	}
}
