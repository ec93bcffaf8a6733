// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"keyferry/online/internal/ceremony"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/state"
	"keyferry/pkg/trust"
)

var side = cli.Side{Program: "online", Is: state.Online, Self: ceremony.Self, InState: withState, Stand: func(s *state.State) (*cli.Standing, error) {
	j, err := ceremony.ReadJournal(s.Ledger)
	if err != nil {
		return nil, err
	}
	return ceremony.Stand(s, j, nil)
}}

// withState runs f in the open state directory.
func withState(io *cli.IO, f func(s *state.State) error) error {
	return io.InState(state.Online, ceremony.Self, f)
}

// withJournal runs f in the open state directory, with what its ledger adds up to.
func withJournal(io *cli.IO, f func(s *state.State, j *ceremony.Journal) error) error {
	return withState(io, func(s *state.State) error {
		j, err := ceremony.ReadJournal(s.Ledger)
		if err != nil {
			return err
		}
		return f(s, j)
	})
}

// withBundle receives a bundle of the offline side and runs f on it.
func withBundle(io *cli.IO, path string, outOfOrder bool, f func(s *state.State, j *ceremony.Journal, r *ceremony.Received) error) error {
	return withJournal(io, func(s *state.State, j *ceremony.Journal) error {
		return ceremony.Receive(io, s, j, path, outOfOrder, func(r *ceremony.Received) error { return f(s, j, r) })
	})
}

// fingerprints shows again what is to be read aloud: this side's security world.
var fingerprints = cli.Fingerprints{Side: side, Names: "world|card|kek|kit|bundle", Faces: func(s *state.State) ([]cli.Face, error) {
	w, file, err := ceremony.OwnWorld(s)
	if err != nil {
		return nil, err
	}
	j, err := ceremony.ReadJournal(s.Ledger)
	if err != nil {
		return nil, err
	}
	faces := []cli.Face{{Name: "world", What: "security world " + trust.WorldName(w.Region, w.Number), Where: "to be read aloud at `offline trust`", Print: fingerprint.Of(file)}}
	if card, file, err := ceremony.PinnedCard(s); err == nil {
		faces = append(faces, cli.Face{Name: "card", What: "pinned offline card of " + card.Name, Where: "which the other side read aloud", Print: fingerprint.Of(file)})
	} else if !control.Is(err, control.TrustNone) {
		return nil, err
	}
	if n := len(j.KEKs); n > 0 {
		faces = append(faces, cli.Face{Name: "kek", What: "KEK " + j.KEKs[n-1].KID, Where: cli.KEKWhere, Print: j.KEKs[n-1].KEK})
	}
	if n := len(j.Kits); n > 0 {
		faces = append(faces, cli.Face{Name: "kit", What: "script of the hand-over kit in " + j.Kits[n-1].Dir, Where: "to be compared on the Windows machine before it runs", Print: j.Kits[n-1].Script})
	}
	if n := len(j.Bundles); n > 0 {
		faces = append(faces, cli.Face{Name: "bundle", What: fmt.Sprintf("manifest of bundle %d", j.Bundles[n-1].Sequence), Where: "which `offline seal` showed", Print: j.Bundles[n-1].Manifest})
	}
	return faces, nil
}}
