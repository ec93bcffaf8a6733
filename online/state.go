// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"

	"keyferry/online/internal/ceremony"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/state"
	"keyferry/pkg/trust"
)

// This file opens the state directory, and reads from it who this side is and
// whom it has pinned.

// worldFile is where this side's own security world package is kept.
const worldFile = "security-world"

// withState runs f in the open state directory.
func withState(io *cli.IO, f func(s *state.State) error) error {
	return io.InState(state.Online, thisSide, f)
}

// thisSide is who this side is, as its security world has it.
func thisSide(s *state.State) (state.Self, error) {
	w, _, err := ownWorld(s)
	if err != nil {
		return state.Self{}, err
	}
	return state.Self{Key: w.Signer}, nil
}

// ownWorld is this side's security world, and its package.
func ownWorld(s *state.State) (*trust.World, []byte, error) {
	file, err := s.Kept(worldFile)
	if err != nil {
		return nil, nil, err
	}
	w, err := trust.OpenWorld(file)
	if err == nil {
		err = s.SameKind("security world", w.Rehearsal)
	}
	return w, file, err
}

// cardFile is where the pinned card is kept.
const cardFile = "offline-card"

// pinnedCard returns the pinned card, and its file.
func pinnedCard(s *state.State) (*trust.Card, []byte, error) {
	file, err := s.Kept(cardFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, control.TrustNone.Refuse("no offline card is pinned")
	}
	if err != nil {
		return nil, nil, err
	}
	card, err := trust.OpenCard(file)
	if err == nil {
		err = s.SameKind("pinned offline card", card.Rehearsal)
	}
	return card, file, err
}

// fingerprints shows again what is to be read aloud: this side's security world.
var fingerprints = cli.Fingerprints{Program: "online", Names: "world|card|bundle", InState: withState, Faces: func(s *state.State) ([]cli.Face, error) {
	w, file, err := ownWorld(s)
	if err != nil {
		return nil, err
	}
	h, err := ceremony.ReadJournal(s.Ledger)
	if err != nil {
		return nil, err
	}
	faces := []cli.Face{{Name: "world", What: "security world " + trust.WorldName(w.Region, w.Number), Where: "to be read aloud at `offline trust`", Print: fingerprint.Of(file)}}
	if card, file, err := pinnedCard(s); err == nil {
		faces = append(faces, cli.Face{Name: "card", What: "pinned offline card of " + card.Name, Where: "which the other side read aloud", Print: fingerprint.Of(file)})
	} else if !control.Is(err, control.TrustNone) {
		return nil, err
	}
	if n := len(h.Bundles); n > 0 {
		faces = append(faces, cli.Face{Name: "bundle", What: fmt.Sprintf("manifest of bundle %d", h.Bundles[n-1].Sequence), Where: "which `offline seal` showed", Print: h.Bundles[n-1].Manifest})
	}
	return faces, nil
}}
