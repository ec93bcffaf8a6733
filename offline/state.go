// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"keyferry/offline/internal/ceremony"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/state"
)

// This file opens the state directory, and reads from it who this side is and
// whom it has pinned.

var side = cli.Side{Program: "offline", Is: state.Offline, Self: ceremony.Self, InState: withState, Stand: func(s *state.State) (*cli.Standing, error) { return standing(s, "") }}

// withState runs f in the open state directory.
func withState(io *cli.IO, f func(s *state.State) error) error {
	err := io.InState(state.Offline, ceremony.Self, f)
	if control.Is(err, control.StateMissing) {
		if stopped := ceremony.InitStopped(io.State); stopped != nil {
			return stopped
		}
	}
	return err
}

// fingerprints shows again what is to be read aloud: the card until something was
// sealed, then the manifest that approvers and the other side see.
var fingerprints = cli.Fingerprints{Side: side, Names: "card|world|kek|bundle", Faces: func(s *state.State) ([]cli.Face, error) {
	h, err := ceremony.ReadJournal(s.Ledger)
	if err != nil {
		return nil, err
	}
	_, file, err := ceremony.OwnCard(s)
	if err != nil {
		return nil, err
	}
	var faces []cli.Face
	if last := h.LastBundle(); last.Sequence > 0 {
		faces = append(faces, cli.Face{Name: "bundle", What: fmt.Sprintf("manifest of bundle %d", last.Sequence), Where: "which approvers and `online verify` see", Print: last.Manifest})
	}
	faces = append(faces, cli.Face{Name: "card", What: "offline card of " + s.Name, Where: "to be read aloud at `online trust`", Print: fingerprint.Of(file)})
	if _, print, err := ceremony.PinnedWorld(s); err == nil {
		faces = append(faces, cli.Face{Name: "world", What: "pinned security world", Where: "which the other side read aloud", Print: print})
	} else if !control.Is(err, control.TrustNone) {
		return nil, err
	}
	if kek := h.LastKEK(); kek.KID != "" {
		faces = append(faces, cli.Face{Name: "kek", What: "KEK " + kek.KID, Where: cli.KEKWhere, Print: kek.KEK})
	}
	return faces, nil
}}
