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
	"keyferry/pkg/sshsig"
	"keyferry/pkg/state"
)

// Kept runs f on the copy in sent of this side's bundle of that number, which
// sender, this side's key, must have signed.
func Kept(s *state.State, sequence uint64, sender sshsig.PublicKey, f func(own *bundle.Own) error) error {
	return withKept(s, sequence, sender, func(own *bundle.Own, _ *os.File) error { return f(own) })
}

// Attach attaches armored signatures to the copy in sent, those that it does not
// have already, and returns who signed and all who have approved by now. See
// [bundle.Own.Approve] for what it refuses; then nothing is attached.
func Attach(s *state.State, sequence uint64, sender sshsig.PublicKey, armored [][]byte, approvers []sshsig.PublicKey) (signers, all []sshsig.PublicKey, err error) {
	err = withKept(s, sequence, sender, func(own *bundle.Own, file *os.File) error {
		changed := false
		for _, signature := range armored {
			signer, again, err := own.Approve(signature, approvers)
			if err != nil {
				return err
			}
			signers = append(signers, signer)
			changed = changed || !again
		}
		all = own.Approvals()
		if !changed {
			return nil
		}
		info, err := file.Stat()
		if err != nil {
			return err
		}
		if err := durable.CheckRoom(filepath.Dir(file.Name()), uint64(info.Size())+1<<20); err != nil { // it is written anew beside the old one
			return err
		}
		return durable.ReplaceFrom(file.Name(), 0o600, func(f *os.File) error {
			return errors.Join(own.Write(f), file.Close()) // Windows replaces no open file
		})
	})
	return signers, all, err
}

func withKept(s *state.State, sequence uint64, sender sshsig.PublicKey, f func(own *bundle.Own, file *os.File) error) error {
	file, err := os.Open(filepath.Join(sentDir(s, sequence), FileName(s, sequence)))
	if err != nil {
		return control.StateDamaged.Refuse("the sealed bundle can't be read: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	own, err := bundle.OpenOwn(io.NewSectionReader(file, 0, info.Size()), sender)
	if err != nil {
		return control.StateDamaged.Refuse("the sealed bundle %s: %w", file.Name(), err)
	}
	return f(own, file)
}
