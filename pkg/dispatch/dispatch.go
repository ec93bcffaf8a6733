// SPDX-License-Identifier: Apache-2.0

// Package dispatch is where bundles leave a side and come in: one is sealed in
// the state directory, copied to the stick, recorded in the ledger; the other
// side's is read from the stick once, and checked.
//
// The bundle comes into being whole or not at all, as
//
//	sent/<sequence>/keyferry-<name>-<sequence>.kfb             the bundle
//	sent/<sequence>/keyferry-<name>-<sequence>.request.json    of a key transfer: its manifest
//	sent/<sequence>/record.json                                what the ledger will say of it
//
// Where approvals are asked for, only the request leaves at first. The bundle
// does once the approvals are attached to the copy in sent.
//
// A run that is killed on the way is taken up with that very bundle: a second
// one under the same number would look like a fork to the receiver. A run that
// fails before anything of that name is on the stick leaves nothing behind.
package dispatch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"keyferry/bundle"
	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/filetype"
	"keyferry/pkg/state"
	"keyferry/pkg/strictjson"
)

const recordName = "record.json"

// Dispatch is a bundle to be sent. T is what the ledger will say of it.
type Dispatch[T any] struct {
	State    *state.State
	Out      string // directory on the stick
	Sequence uint64
	Event    string                                      // of the ledger
	Withhold bool                                        // only the request for approvals leaves
	Letter   func() (bundle.Letter, func() error, error) // what to seal, and what lets the signing key go
	Record   func(*bundle.Sealed) T
}

// Check refuses what would stop Send at the stick: no place for it, or a file
// in the place of the bundle or its request that is another one.
func Check(s *state.State, sequence uint64, out string) error {
	if err := durable.CheckDir(out); err != nil {
		return err
	}
	for _, name := range []string{FileName(s, sequence), RequestName(s, sequence)} {
		if err := checkPlace(filepath.Join(sentDir(s, sequence), name), filepath.Join(out, name)); err != nil {
			return err
		}
	}
	return nil
}

func checkPlace(sent, path string) error {
	file, err := os.Open(sent)
	if err != nil { // nothing was sealed yet
		return durable.CheckAbsent(path)
	}
	defer file.Close()
	if there, err := durable.IsOnStick(path, file); there || err != nil {
		return err
	}
	return durable.CheckAbsent(path)
}

// FileName is the name of this side's bundle of that number.
func FileName(s *state.State, sequence uint64) string {
	return bundle.FileName(s.Name, sequence)
}

// RequestName is the name of the request for approvals of that bundle.
func RequestName(s *state.State, sequence uint64) string {
	return bundle.RequestName(s.Name, sequence)
}

// Send sends the bundle, or the request for its approvals, and returns the path on
// the stick and the record.
func (d Dispatch[T]) Send() (path string, record T, err error) {
	if err := Check(d.State, d.Sequence, d.Out); err != nil {
		return "", record, err
	}
	dir := sentDir(d.State, d.Sequence)
	_, err = os.Stat(dir)
	fresh := errors.Is(err, fs.ErrNotExist)
	if fresh {
		err = d.seal(dir)
	}
	if err != nil {
		return "", record, err
	}
	name := FileName(d.State, d.Sequence)
	if d.Withhold {
		name = RequestName(d.State, d.Sequence)
	}
	if path, err = deliver(d.State, d.Sequence, name, d.Out); err != nil {
		if _, there := os.Lstat(filepath.Join(d.Out, name)); fresh && errors.Is(there, fs.ErrNotExist) {
			err = errors.Join(err, durable.Remove(dir)) // it was never out of this machine: nothing has happened
		}
		return "", record, err
	}
	data, err := os.ReadFile(filepath.Join(dir, recordName))
	if err == nil {
		err = strictjson.Unmarshal(data, 1<<20, &record)
	}
	if err != nil {
		return "", record, control.StateDamaged.Refuse("%s can't be read: %w", dir, err)
	}
	return path, record, d.State.Ledger.Append(time.Now(), d.Event, record)
}

func sentDir(s *state.State, sequence uint64) string {
	return s.Path("sent", fmt.Sprint(sequence))
}

func (d Dispatch[T]) seal(dir string) error {
	if err := durable.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	letter, release, err := d.Letter()
	if err != nil {
		return err
	}
	err = durable.NewDir(dir, 0o700, func(part string) error { return d.sealInto(part, letter) })
	return errors.Join(err, release())
}

func (d Dispatch[T]) sealInto(dir string, letter bundle.Letter) error {
	var sealed *bundle.Sealed
	scratch, err := durable.Scratch(dir)
	if err != nil {
		return err
	}
	err = durable.CreateFrom(filepath.Join(dir, FileName(d.State, d.Sequence)), 0o600, func(f *os.File) (err error) {
		sealed, err = bundle.Seal(f, scratch, letter)
		return err
	})
	if err := errors.Join(err, scratch.Close()); err != nil {
		return err
	}
	if letter.Purpose == bundle.KeyTransfer {
		if err := durable.Create(filepath.Join(dir, RequestName(d.State, d.Sequence)), sealed.Request, 0o600); err != nil {
			return err
		}
	}
	record, err := json.Marshal(d.Record(sealed))
	if err != nil {
		return err
	}
	return durable.Create(filepath.Join(dir, recordName), record, 0o600)
}

// Deliver copies a bundle that was sealed to the stick, and returns its path
// there. The very same file on the stick is from an earlier run.
func Deliver(s *state.State, sequence uint64, out string) (string, error) {
	return deliver(s, sequence, FileName(s, sequence), out)
}

// DeliverRequest does the same with the request for approvals of that bundle.
func DeliverRequest(s *state.State, sequence uint64, out string) (string, error) {
	return deliver(s, sequence, RequestName(s, sequence), out)
}

func deliver(s *state.State, sequence uint64, name, out string) (string, error) {
	if err := durable.CheckDir(out); err != nil {
		return "", err
	}
	sent, err := os.Open(filepath.Join(sentDir(s, sequence), name))
	if err != nil {
		return "", control.StateDamaged.Refuse("the sealed bundle can't be read: %w", err)
	}
	defer sent.Close()
	path := filepath.Join(out, name)
	if there, err := durable.IsOnStick(path, sent); there || err != nil {
		return path, err
	}
	if err := durable.MkdirAll(out, 0o700); err != nil {
		return "", err
	}
	return path, durable.ToStick(path, sent, 0o644)
}

// Receive reads the other side's bundle from the stick once, checks it against
// pins, and runs f on it. The copy has no name and is gone when f returns.
func Receive(s *state.State, path string, pins bundle.Pins, f func(v *bundle.Verified) error) (err error) {
	stick, err := openBundle(path)
	if err != nil {
		return err
	}
	defer stick.Close()
	scratch, err := durable.Scratch(s.Dir)
	if errors.Is(err, syscall.EROFS) { // an archive: to look at a bundle changes nothing in it
		scratch, err = durable.Scratch(os.TempDir())
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, scratch.Close()) }()
	head, err := io.ReadAll(io.LimitReader(stick, 4096))
	if err != nil {
		return fmt.Errorf("read the bundle from the stick: %w", err)
	}
	v, err := bundle.Open(io.MultiReader(bytes.NewReader(head), stick), scratch, pins)
	if control.Is(err, control.BundleFormat) {
		want := filetype.Bundle
		if pins.Purpose == bundle.Receipt {
			want = filetype.Receipt
		}
		err = filetype.Explain(err, head, want)
	}
	if err != nil {
		return err
	}
	return f(v)
}

// openBundle opens a bundle that a person named.
func openBundle(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, control.InputFile.Refuse("%w", err)
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case info.IsDir():
		err = control.InputFile.Refuse("%s is a directory, not a bundle", path)
	case info.Size() > bundle.MaxSize:
		err = control.BundleSize.Refuse("%s has %d bytes; a bundle has at most %d", path, info.Size(), bundle.MaxSize)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
