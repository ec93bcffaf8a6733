// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"keyferry/offline/internal/ceremony"
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
	card, _, err := ownCard(s)
	if err != nil {
		return sshsig.PublicKey{}, err
	}
	return card.Signer, nil
}

// ownCard is this side's card, and its file.
func ownCard(s *state.State) (*trust.Card, []byte, error) {
	file, err := s.Kept(trust.CardName(s.Name))
	if err != nil {
		return nil, nil, err
	}
	card, err := trust.OpenCard(file)
	if err != nil {
		return nil, nil, control.StateDamaged.Refuse("this side's card: %w", err)
	}
	return card, file, nil
}

// fingerprints shows again what is to be read aloud: the card until something was
// sealed, then the manifest that approvers and the other side see.
var fingerprints = cli.Fingerprints{Program: "offline", Names: "card|world|kek|bundle", InState: withState, Faces: func(s *state.State) ([]cli.Face, error) {
	h, err := ceremony.ReadJournal(s.Ledger)
	if err != nil {
		return nil, err
	}
	_, file, err := ownCard(s)
	if err != nil {
		return nil, err
	}
	var faces []cli.Face
	if last := h.LastBundle(); last.Sequence > 0 {
		faces = append(faces, cli.Face{Name: "bundle", What: fmt.Sprintf("manifest of bundle %d", last.Sequence), Where: "which approvers and `online verify` see", Print: last.Manifest})
	}
	faces = append(faces, cli.Face{Name: "card", What: "offline card of " + s.Name, Where: "to be read aloud at `online trust`", Print: fingerprint.Of(file)})
	if _, print, err := pinnedWorld(s); err == nil {
		faces = append(faces, cli.Face{Name: "world", What: "pinned security world", Where: "which the other side read aloud", Print: print})
	} else if !control.Is(err, control.TrustNone) {
		return nil, err
	}
	if kek := h.LastKEK(); kek.KID != "" {
		faces = append(faces, cli.Face{Name: "kek", What: "KEK " + kek.KID, Where: kekWhere, Print: kek.KEK})
	}
	return faces, nil
}}

// kekWhere says where the KEK's fingerprint is compared.
const kekWhere = "which a second person reads from the vault on a second machine"

// worldFile is where the pinned security world's package is kept.
const worldFile = "security-world"

// pinnedWorld returns the pinned security world and its fingerprint.
func pinnedWorld(s *state.State) (*trust.World, fingerprint.Fingerprint, error) {
	file, err := s.Kept(worldFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fingerprint.Fingerprint{}, control.TrustNone.Refuse("no security world is pinned")
	}
	if err != nil {
		return nil, fingerprint.Fingerprint{}, err
	}
	w, err := trust.OpenWorld(file)
	if err == nil {
		err = s.SameKind("pinned security world", w.Rehearsal)
	}
	return w, fingerprint.Of(file), err
}
