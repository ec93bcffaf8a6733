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
)

// SignHead signs the ledger's head.
func (s *State) SignHead(signer crypto.Signer) error {
	file, err := s.Ledger.SealHead(signer, time.Now())
	if err != nil {
		return err
	}
	return durable.Replace(s.Path(headFile), file, 0o600)
}

// SignLedger signs the ledger's head with the key in the state directory. Where
// that key is in an HSM, it does nothing: see [State.SignHead].
func (s *State) SignLedger() error {
	if _, err := os.Lstat(s.Path("identity", "sign.pem")); errors.Is(err, fs.ErrNotExist) {
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
