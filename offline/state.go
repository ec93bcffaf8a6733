// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/sshsig"
	"keyferry/pkg/state"
	"keyferry/pkg/trust"
)

// This file opens the state directory, and reads from it who this side is and
// whom it has pinned.

// withState runs f in the open state directory.
func withState(io *cli.IO, f func(s *state.State) error) error {
	err := io.InState(state.Offline, thisSide, f)
	if control.Is(err, control.StateMissing) {
		if j, e := readJournal(filepath.Clean(io.State)); e == nil && j != nil && j.SignerID != nil {
			return leftSigner(j)
		}
	}
	return err
}

// thisSide is who this side is, as its card and its token's settings have it.
func thisSide(s *state.State) (state.Self, error) {
	key, err := ownKey(s)
	if err != nil {
		return state.Self{}, err
	}
	settings, err := readTokenSettings(s)
	return state.Self{Key: key, SignerElsewhere: settings.Signer == signerHSM}, err
}

// ownKey is this side's public signing key, as its card has it: a receipt can
// be taken without the HSM.
func ownKey(s *state.State) (sshsig.PublicKey, error) {
	file, err := os.ReadFile(s.Path(trust.CardName(s.Name)))
	if err != nil {
		return sshsig.PublicKey{}, control.StateDamaged.Refuse("this side's card can't be read: %w", err)
	}
	card, err := trust.OpenCard(file)
	if err != nil {
		return sshsig.PublicKey{}, control.StateDamaged.Refuse("this side's card: %w", err)
	}
	return card.Signer, nil
}

// worldFile is where the pinned security world's package is kept.
const worldFile = "security-world"

// pinnedWorld returns the pinned security world and its fingerprint.
func pinnedWorld(s *state.State) (*trust.World, fingerprint.Fingerprint, error) {
	file, err := os.ReadFile(s.Path(worldFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fingerprint.Fingerprint{}, control.TrustNone.Refuse("no security world is pinned")
	}
	if err != nil {
		return nil, fingerprint.Fingerprint{}, err
	}
	w, err := trust.OpenWorld(file)
	return w, fingerprint.Of(file), err
}
