// SPDX-License-Identifier: Apache-2.0

package state

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/ledger"
)

// Keep puts a file into the state directory, in place of one of that name, and pins
// it by a record of the event. The new one waits beside the old one until the record
// is there: a run that is killed between leaves the old file or, at the next opening,
// the new one.
func (s *State) Keep(now time.Time, event string, data any, name string, file []byte) error {
	if err := durable.Replace(s.waiting(name), file, 0o600); err != nil {
		return err
	}
	if err := s.Ledger.Pin(now, event, data, ledger.Files{name: fingerprint.Of(file)}); err != nil {
		return err
	}
	return s.settle(name, file)
}

func (s *State) waiting(name string) string { return s.Path(name + ".next") }

func (s *State) settle(name string, file []byte) error {
	if err := durable.Replace(s.Path(name), file, 0o600); err != nil {
		return err
	}
	return durable.Remove(s.waiting(name))
}

// Kept returns a file that the ledger pins. One that it does not pin is none
// (fs.ErrNotExist), whatever lies there.
func (s *State) Kept(name string) ([]byte, error) {
	want, pinned := s.Ledger.Files()[name]
	if !pinned {
		return nil, &fs.PathError{Op: "read", Path: s.Path(name), Err: fs.ErrNotExist}
	}
	file, err := os.ReadFile(s.Path(name))
	if errors.Is(err, fs.ErrNotExist) || err == nil && fingerprint.Of(file) != want {
		return nil, control.StateDamaged.Refuse("%s is not the file that the ledger knows, whose SHA-256 is %s", s.Path(name), want.Hex())
	}
	return file, err
}

// checkFiles compares the files that the ledger pins.
func (s *State) checkFiles() error {
	pinned := s.Ledger.Files()
	for _, name := range slices.Sorted(maps.Keys(pinned)) {
		if !filepath.IsLocal(name) {
			return control.LedgerBroken.Refuse("the ledger pins %s, which is no file of the state directory", control.Quote(name))
		}
		_, damaged := s.Kept(name)
		if damaged == nil {
			continue
		}
		file, err := os.ReadFile(s.waiting(name))
		if err != nil || fingerprint.Of(file) != pinned[name] {
			return damaged
		}
		if err := s.settle(name, file); err != nil {
			return err
		}
	}
	return nil
}
