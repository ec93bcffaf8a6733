// SPDX-License-Identifier: Apache-2.0

package dispatch

import (
	"errors"
	"io"
	"os"
	"path/filepath"

	"keyferry/bundle"
	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/sshsig"
	"keyferry/pkg/state"
)

// Approval is a bundle of this side's own that is to be approved. The copy in
// sent/ is what counts: it takes the approval first, and the one on the stick
// is replaced by it. So sticks that were approved apart come together, and a run
// that is killed between the two is taken up by the same command.
type Approval struct {
	State    *state.State
	Path     string // of the bundle on the stick
	Sequence uint64
	Sender   sshsig.PublicKey // this side's
}

// Digest tells which bundle lies at path, by its manifest.
func Digest(path string, sender sshsig.PublicKey) (fingerprint.Fingerprint, error) {
	var digest fingerprint.Fingerprint
	return digest, withOwn(path, sender, func(own *bundle.Own, _ *os.File) error {
		digest = own.Digest
		return nil
	})
}

// Attach attaches the armored signature to the copy in sent/, unless it is there
// already, and returns its signer and all who have approved by now. See
// [bundle.Own.Approve] for what it refuses.
func (a Approval) Attach(armored []byte, approvers []sshsig.PublicKey) (signer sshsig.PublicKey, all []sshsig.PublicKey, err error) {
	kept := a.kept()
	info, err := os.Stat(kept)
	if err != nil {
		return signer, nil, control.StateDamaged.Refuse("the sealed bundle can't be read: %w", err)
	}
	for _, path := range []string{kept, a.Path} { // each is written anew beside the old one
		if err := durable.CheckRoom(filepath.Dir(path), uint64(info.Size())+1<<20); err != nil {
			return signer, nil, err
		}
	}
	err = withOwn(kept, a.Sender, func(own *bundle.Own, file *os.File) error {
		var again bool
		if signer, again, err = own.Approve(armored, approvers); err != nil {
			return err
		}
		all = own.Approvals()
		if again {
			return nil
		}
		return durable.ReplaceFrom(kept, 0o600, func(f *os.File) error {
			return errors.Join(own.Write(f), file.Close()) // Windows replaces no open file
		})
	})
	return signer, all, err
}

// Deliver replaces the bundle on the stick by the copy in sent/, unless it is
// that already.
func (a Approval) Deliver() error {
	kept, err := os.Open(a.kept())
	if err != nil {
		return control.StateDamaged.Refuse("the sealed bundle can't be read: %w", err)
	}
	defer kept.Close()
	if there, err := durable.IsOnStick(a.Path, kept); there || err != nil {
		return err
	}
	return durable.ReplaceOnStick(a.Path, kept, 0o644)
}

func (a Approval) kept() string {
	return filepath.Join(sentDir(a.State, a.Sequence), FileName(a.State, a.Sequence))
}

// withOwn runs f on a bundle of this side's own.
func withOwn(path string, sender sshsig.PublicKey, f func(own *bundle.Own, file *os.File) error) error {
	file, err := openBundle(path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	own, err := bundle.OpenOwn(io.NewSectionReader(file, 0, info.Size()), sender)
	if err != nil {
		return err
	}
	return f(own, file)
}
