// SPDX-License-Identifier: Apache-2.0

package state

import (
	"crypto"
	"errors"
	"io/fs"
	"os"
	"time"

	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/ledger"
	"keyferry/pkg/sshsig"
)

// SignHead signs the ledger's head. Once a head is signed, no other key signs one
// (KF-LEDGER-HEAD): so no head of somebody else is covered up by a good one.
func (s *State) SignHead(signer crypto.Signer) error {
	key, err := sshsig.NewPublicKey(signer.Public())
	if err != nil {
		return err
	}
	if s.Signed != nil && !key.Equal(s.HeadBy) {
		return control.LedgerHead.Refuse("the ledger's head was signed by %s, and is to be signed by %s now", s.HeadBy.Fingerprint(), key.Fingerprint())
	}
	file, err := s.Ledger.SealHead(signer, time.Now())
	if err != nil {
		return err
	}
	return durable.Replace(s.Path(headFile), file, 0o600)
}

// SignLedger signs the ledger's head with the key in the state directory. Where
// that key is in an HSM, it does nothing: see [State.SignHead].
func (s *State) SignLedger() error {
	if s.SignerElsewhere {
		return nil
	}
	signer, err := s.Signer()
	if err != nil {
		return err
	}
	return s.SignHead(signer)
}

// checkHead holds the ledger against the head that was signed last.
func (s *State) checkHead() error {
	file, err := os.ReadFile(s.Path(headFile))
	if errors.Is(err, fs.ErrNotExist) {
		return control.LedgerHead.Refuse("the signed head of the ledger of %s is gone", s.Dir)
	}
	if err != nil {
		return err
	}
	if s.Signed, s.HeadBy, err = ledger.OpenHead(file); err != nil {
		return err
	}
	return s.Ledger.Covers(s.Signed.Ledger)
}

// checkSelf wants the head signed by this side, and the key that signs to be there.
func (s *State) checkSelf(self Self) error {
	if !s.HeadBy.Equal(self.Key) {
		return control.LedgerHead.Refuse("the ledger's head is signed by %s, which is not this side's key %s", s.HeadBy.Fingerprint(), self.Key.Fingerprint())
	}
	s.SignerElsewhere = self.SignerElsewhere
	if s.SignerElsewhere {
		return nil
	}
	signer, err := s.Signer()
	if err != nil {
		return err
	}
	key, err := sshsig.NewPublicKey(signer.Public())
	if err != nil || !key.Equal(self.Key) {
		return control.StateDamaged.Refuse("%s does not hold this side's key %s", s.Path("identity", "sign.pem"), self.Key.Fingerprint())
	}
	return nil
}
