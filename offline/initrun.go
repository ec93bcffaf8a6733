// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"keyferry/offline/internal/hsm"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/state"
	"keyferry/pkg/strictjson"
	"keyferry/pkg/trust"
)

// This file is the order of an init, which changes three things: the token, the
// state directory, the stick. A journal beside the state directory is there
// from before the first until after the last:
//
//	open the token; write <state>.init; make the signing key;
//	make the state directory, whole or not at all; write the card to the stick;
//	remove <state>.init
//
// A run that fails undoes all of it, the state directory first. After one that
// was killed, the same command goes on: without a state directory it removes
// the signing key that the journal names and begins anew, with one it delivers
// the card.

// initJournal is what an init is about to leave outside the state directory.
type initJournal struct {
	Token    tokenSettings `json:"token"`
	SignerID []byte        `json:"signer_id"` // CKA_ID of the signing key; null where it ends with the state directory
}

// initRun is an init on its way.
type initRun struct {
	*initOptions
	io     *cli.IO
	dir    string       // the state directory
	before *initJournal // of a run that was stopped
	begun  *initJournal // of this run
	hsm    *hsm.Token   // open, where its signing key may have to be removed
}

func journalPath(dir string) string { return dir + ".init" }

// readJournal returns the journal of an init that was stopped, nil without one.
func readJournal(dir string) (*initJournal, error) {
	data, err := os.ReadFile(journalPath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var j initJournal
	if err == nil {
		err = strictjson.Unmarshal(data, 1<<20, &j)
	}
	if err != nil {
		return nil, control.StateDamaged.Refuse("%s can't be read: %w", journalPath(dir), err)
	}
	return &j, nil
}

// run makes the state directory and returns the card.
func (r *initRun) run(ctx context.Context) (card []byte, err error) {
	if r.before, err = readJournal(r.dir); err != nil {
		return nil, err
	}
	if entries, err := os.ReadDir(r.dir); r.before != nil && err == nil && len(entries) > 0 {
		return r.finish()
	}
	meta := state.Meta{Side: state.Offline, Name: r.name, Rehearsal: r.rehearsal, Created: time.Now()}
	options := state.Options{ClassicRecipient: r.classic, SignerElsewhere: r.signer == signerHSM}
	err = state.Create(r.dir, meta, options, func(s *state.State) error { return r.fill(ctx, s) })
	made := err == nil
	if made {
		card, err = r.deliver()
	}
	if err != nil {
		err = errors.Join(err, r.undo(made, err))
	}
	if r.hsm != nil {
		err = errors.Join(err, r.hsm.Close())
	}
	if err != nil {
		return nil, err
	}
	return card, durable.Remove(journalPath(r.dir))
}

// finish ends a run that was stopped once the state directory was there.
func (r *initRun) finish() ([]byte, error) {
	s, err := state.Open(r.dir, state.Offline, thisSide)
	if err != nil {
		return nil, err
	}
	name, kind, rehearsal := s.Name, s.Kind(), s.Rehearsal
	if err := s.Close(); err != nil {
		return nil, err
	}
	if name != r.name || rehearsal != r.rehearsal {
		return nil, control.StateExists.Refuse("%s exists already, of %s (%s)", r.dir, name, kind)
	}
	card, err := r.deliver()
	if err != nil {
		return nil, err
	}
	return card, durable.Remove(journalPath(r.dir))
}

// deliver writes the card to the stick, unless it is there.
func (r *initRun) deliver() ([]byte, error) {
	card, err := os.ReadFile(filepath.Join(r.dir, trust.CardName(r.name)))
	if err != nil || r.out == "" {
		return card, err
	}
	if there, err := os.ReadFile(r.cardOut()); err == nil && bytes.Equal(there, card) {
		return card, nil
	}
	return card, durable.CreateAll([]durable.File{{Path: r.cardOut(), Data: card}}, 0o644)
}

// begin removes what a run that was stopped has left in the token, and writes
// the journal of this one. It returns the CKA_ID for the signing key.
func (r *initRun) begin(token *hsm.Token, settings tokenSettings) ([]byte, error) {
	if before := r.before; before != nil && before.SignerID != nil {
		if before.Token.Module != settings.Module || before.Token.Serial != settings.Serial {
			return nil, leftSigner(before).WithHint("run the init with that token again, or remove the key with the HSM's own tools and then %s", journalPath(r.dir))
		}
		if err := token.RemoveSigner(signerLabel, before.SignerID); err != nil {
			return nil, err
		}
	}
	if r.hsm != nil { // what bears the label from here on is this run's
		if err := token.CheckLabel(signerLabel); err != nil {
			return nil, err
		}
	}
	id := make([]byte, 32)
	rand.Read(id) // never fails
	begun := &initJournal{Token: settings}
	if r.hsm != nil {
		begun.SignerID = id
	}
	data, err := json.Marshal(begun)
	if err != nil {
		return nil, err
	}
	if err := durable.Replace(journalPath(r.dir), data, 0o600); err != nil {
		return nil, err
	}
	r.begun = begun
	return id, nil
}

// undo takes back what a run that fails has done.
func (r *initRun) undo(made bool, failure error) error {
	if made {
		if err := durable.Remove(r.dir); err != nil {
			return err
		}
	}
	if r.begun == nil {
		return nil
	}
	if r.begun.SignerID != nil {
		if err := r.hsm.RemoveSigner(signerLabel, r.begun.SignerID); err != nil {
			return errors.Join(err, leftSigner(r.begun))
		}
		if control.Is(failure, control.HSMLeftover) { // what may be left, the next run can see
			return leftSigner(r.begun)
		}
	}
	return durable.Remove(journalPath(r.dir))
}

// leftSigner is the refusal while the token may have the signing key of an init
// that came to nothing.
func leftSigner(j *initJournal) *control.Refusal {
	return control.HSMLeftover.Refuse("an init was stopped, and may have left its signing key %s in the token %s with the serial number %s",
		signerLabel, control.Quote(j.Token.Label), control.Quote(j.Token.Serial)).
		WithHint("run the same init again: it removes that key and makes a new one")
}
