// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"slices"
	"time"

	"keyferry/pkg/control"
	"keyferry/pkg/ledger"
	"keyferry/pkg/state"
)

// InState runs f in the open state directory. Its ledger learns what f does not
// tell it, a refusal and a dry run, and its head is signed where that is not yet done.
// What of this fails, stops nothing: the next run signs, and people are told.
func (o *IO) InState(side state.Side, self func(*state.State) (state.Self, error), f func(s *state.State) error) error {
	s, err := state.Open(o.State, side, self)
	if err != nil {
		return err
	}
	if o.Rehearsal && !s.Rehearsal {
		return errors.Join(control.TrustRehearsal.Refuse("--rehearsal was given, and %s is the state directory of a real ceremony", s.Dir).
			WithHint("leave --rehearsal away for the real ceremony, or --state for the rehearsal"), s.Close())
	}
	o.Rehearsal = s.Rehearsal
	if s.Rehearsal {
		o.Note("REHEARSAL of %s: nothing of it is real", s.Name)
	}
	if err = o.checkLedgerClock(s); err == nil {
		err = f(s)
	}
	if err != nil || o.dryRun {
		if err := s.Ledger.Append(time.Now(), ledger.EventRun, ledger.Run{Command: o.command, DryRun: o.dryRun, Controls: controls(err)}); err != nil {
			o.Warn("this run is not in the ledger: %v", err)
		}
	}
	if s.Ledger.Mark() != s.Signed.Ledger {
		if err := s.SignLedger(); err != nil {
			o.Warn("the ledger's head is not signed: %v", err)
		}
	}
	return errors.Join(err, s.Close())
}

// controls lists what ended a run, each once.
func controls(err error) []string {
	ids := []string{}
	if err == nil {
		return ids
	}
	for _, r := range Refusals(err) {
		if !slices.Contains(ids, r.Control.ID) {
			ids = append(ids, r.Control.ID)
		}
	}
	return ids
}
