// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"context"
	"crypto"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
	"unicode/utf8"

	"keyferry/offline/internal/hsm"
	"keyferry/offline/internal/module"
	"keyferry/offline/internal/signer"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/sshsig"
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

// InitRequest says what this side is to be.
type InitRequest struct {
	Dir                string // the state directory, absolute
	Name, Out          string // Out is where the card is written as well; may be empty
	Rehearsal, Classic bool
	Token              TokenSettings // as far as the flags say
	Access
}

// initJournal is what an init is about to leave outside the state directory.
type initJournal struct {
	Token    TokenSettings `json:"token"`
	SignerID []byte        `json:"signer_id"` // CKA_ID of the signing key; null where it ends with the state directory
}

// initRun is an init on its way.
type initRun struct {
	InitRequest
	io     *cli.IO
	before *initJournal // of a run that was stopped
	begun  *initJournal // of this run
	hsm    *hsm.Token   // open, where its signing key may have to be removed
}

func journalPath(dir string) string { return dir + ".init" }

// readInitJournal returns the journal of an init that was stopped, nil without one.
func readInitJournal(dir string) (*initJournal, error) {
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

// Init makes the state directory and returns the card.
func Init(ctx context.Context, io *cli.IO, request InitRequest) (card []byte, err error) {
	r := &initRun{InitRequest: request, io: io}
	if r.before, err = readInitJournal(r.Dir); err != nil {
		return nil, err
	}
	if entries, err := os.ReadDir(r.Dir); r.before != nil && err == nil && len(entries) > 0 {
		return r.finish()
	}
	meta := state.Meta{Side: state.Offline, Name: r.Name, Rehearsal: r.Rehearsal, Created: time.Now()}
	options := state.Options{ClassicRecipient: r.Classic, SignerElsewhere: r.Token.Signer == SignerHSM}
	err = state.Create(r.Dir, meta, options, func(s *state.State) error { return r.fill(ctx, s) })
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
	return card, durable.Remove(journalPath(r.Dir))
}

// finish ends a run that was stopped once the state directory was there.
func (r *initRun) finish() ([]byte, error) {
	s, err := state.Open(r.Dir, state.Offline, Self)
	if err != nil {
		return nil, err
	}
	name, kind, rehearsal := s.Name, s.Kind(), s.Rehearsal
	if err := s.Close(); err != nil {
		return nil, err
	}
	if name != r.Name || rehearsal != r.Rehearsal {
		return nil, control.StateExists.Refuse("%s exists already, of %s (%s)", r.Dir, name, kind)
	}
	card, err := r.deliver()
	if err != nil {
		return nil, err
	}
	return card, durable.Remove(journalPath(r.Dir))
}

// deliver writes the card to the stick, unless it is there.
func (r *initRun) deliver() ([]byte, error) {
	card, err := os.ReadFile(filepath.Join(r.Dir, trust.CardName(r.Name)))
	if err != nil || r.Out == "" {
		return card, err
	}
	missing, err := durable.Missing(durable.File{Path: r.cardOut(), Data: card})
	if err != nil {
		return nil, err
	}
	return card, durable.CreateAll(missing, 0o644)
}

// begin removes what a run that was stopped has left in the token, and writes
// the journal of this one. It returns the CKA_ID for the signing key.
func (r *initRun) begin(token *hsm.Token, settings TokenSettings) ([]byte, error) {
	if before := r.before; before != nil && before.SignerID != nil {
		if before.Token.Module != settings.Module || before.Token.Serial != settings.Serial {
			return nil, leftSigner(before).WithHint("run the init with that token again, or remove the key with the HSM's own tools and then %s", journalPath(r.Dir))
		}
		if err := signer.Remove(token, SignerLabel, before.SignerID); err != nil {
			return nil, err
		}
	}
	if r.hsm != nil { // what bears the label from here on is this run's
		if err := signer.CheckFree(token, SignerLabel); err != nil {
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
	if err := durable.Replace(journalPath(r.Dir), data, 0o600); err != nil {
		return nil, err
	}
	r.begun = begun
	return id, nil
}

// undo takes back what a run that fails has done.
func (r *initRun) undo(made bool, failure error) error {
	if made {
		if err := durable.Remove(r.Dir); err != nil {
			return err
		}
	}
	if r.begun == nil {
		return nil
	}
	if r.begun.SignerID != nil {
		if err := signer.Remove(r.hsm, SignerLabel, r.begun.SignerID); err != nil {
			return errors.Join(err, leftSigner(r.begun))
		}
		if control.Is(failure, control.HSMLeftover) { // what may be left, the next run can see
			return leftSigner(r.begun)
		}
	}
	return durable.Remove(journalPath(r.Dir))
}

// leftSigner is the refusal while the token may have the signing key of an init
// that came to nothing.
func leftSigner(j *initJournal) *control.Refusal {
	return control.HSMLeftover.Refuse("an init was stopped, and may have left its signing key %s in the token %s with the serial number %s",
		SignerLabel, control.Quote(j.Token.Label), control.Quote(j.Token.Serial)).
		WithHint("run the same init again: it removes that key and makes a new one")
}

// fill makes the token's settings, in a rehearsal the token too, and the card.
func (r *initRun) fill(ctx context.Context, s *state.State) (err error) {
	if r.Out != "" { // before a key is made in the HSM
		if err := durable.CheckAbsent(r.cardOut()); err != nil {
			return err
		}
	}
	settings, signer, release, err := r.settleToken(ctx, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	if err := s.WriteJSON(TokenFile, settings); err != nil {
		return err
	}
	public, err := sshsig.NewPublicKey(signer.Public())
	if err != nil {
		return err
	}
	recipient, err := s.Recipient()
	if err != nil {
		return err
	}
	card, err := trust.Card{Name: s.Name, Created: s.Created, Rehearsal: s.Rehearsal, Signer: public, Recipient: recipient}.Encode()
	if err != nil {
		return err
	}
	if err := durable.Create(s.Path(trust.CardName(s.Name)), card, 0o644); err != nil {
		return err
	}
	if settings.Practice {
		if err := writeSoftHSMConf(s.Dir, r.Dir); err != nil {
			return err
		}
	}
	var given []state.Fact
	if r.Out != "" {
		out, err := filepath.Abs(r.Out)
		if err != nil {
			return err
		}
		given = []state.Fact{{Event: EventCard, Data: CardGiven{Out: out}}}
	}
	return s.Begin(signer, given...)
}

// settleToken finds the token, in a rehearsal makes it, makes the signing key
// in it where it is to live there, and returns the settings to keep, the signing key
// and the function that lets it go. It opens the token once: its PIN is asked once.
func (r *initRun) settleToken(ctx context.Context, s *state.State) (settings TokenSettings, key crypto.Signer, release func() error, err error) {
	settings = r.Token
	settings.Sandbox = r.Needs
	if settings.Module, err = module.Find(settings.Module); err != nil {
		return settings, nil, nil, err
	}
	if settings.Practice {
		settings.Label = "keyferry-rehearsal"
		if err := createRehearsalToken(s, settings); err != nil {
			return settings, nil, nil, err
		}
	}
	token, err := settings.Open(ctx, r.io, s, r.Access)
	if err != nil {
		return settings, nil, nil, err
	}
	settings.Label, settings.Serial = token.Info().Label, token.Info().Serial
	release = token.Close
	if !utf8.ValidString(settings.Label) {
		return settings, nil, nil, errors.Join(control.HSMTokenLabel.Refuse("the label of the token %s is not UTF-8, so that it can't be kept", control.Quote(settings.Label)).
			WithHint("give the token a label of letters and digits with the HSM's own tools"), release())
	}
	if settings.Signer == SignerHSM && !settings.Practice {
		r.hsm, release = token, func() error { return nil } // where the key outlives a run that fails
	}
	id, err := r.begin(token, settings)
	if err != nil {
		return settings, nil, nil, errors.Join(err, release())
	}
	if settings.Signer == SignerHSM {
		key, err = signer.Create(token, SignerLabel, id)
	} else {
		key, err = s.Signer()
	}
	if err != nil {
		return settings, nil, nil, errors.Join(err, release())
	}
	return settings, key, release, nil
}

// cardOut is where the card goes on the stick.
func (r *initRun) cardOut() string { return filepath.Join(r.Out, trust.CardName(r.Name)) }

// InitStopped is the refusal where an init was stopped that may have left its signing
// key in the token; nil if none was.
func InitStopped(dir string) *control.Refusal {
	if j, err := readInitJournal(filepath.Clean(dir)); err == nil && j != nil && j.SignerID != nil {
		return leftSigner(j)
	}
	return nil
}
