// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io/fs"
	"os"

	"keyferry/pkg/cli"
	"keyferry/pkg/control"
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
	file, err := os.ReadFile(s.Path(worldFile))
	if err != nil {
		return nil, nil, control.StateDamaged.Refuse("the security world can't be read: %w", err)
	}
	w, err := trust.OpenWorld(file)
	return w, file, err
}

// cardFile is where the pinned card is kept.
const cardFile = "offline-card"

// pinnedCard returns the pinned card.
func pinnedCard(s *state.State) (*trust.Card, error) {
	file, err := os.ReadFile(s.Path(cardFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, control.TrustNone.Refuse("no offline card is pinned")
	}
	if err != nil {
		return nil, err
	}
	return trust.OpenCard(file)
}
