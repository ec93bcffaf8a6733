// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"errors"
	"io/fs"

	"keyferry/pkg/control"
	"keyferry/pkg/state"
	"keyferry/pkg/trust"
)

// Files of the state directory, beside package state's.
const (
	WorldFile = "security-world" // this side's own security world package
	CardFile  = "offline-card"   // the offline side's card that is pinned
)

// Self is who this side is, as its security world has it.
func Self(s *state.State) (state.Self, error) {
	w, _, err := OwnWorld(s)
	if err != nil {
		return state.Self{}, err
	}
	return state.Self{Key: w.Signer}, nil
}

// OwnWorld is this side's security world, and its package.
func OwnWorld(s *state.State) (*trust.World, []byte, error) {
	file, err := s.Kept(WorldFile)
	if err != nil {
		return nil, nil, err
	}
	w, err := trust.OpenWorld(file)
	if err == nil {
		err = s.SameKind("security world", w.Rehearsal)
	}
	return w, file, err
}

// PinnedCard is the offline side's card, and its file.
func PinnedCard(s *state.State) (*trust.Card, []byte, error) {
	file, err := s.Kept(CardFile)
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
