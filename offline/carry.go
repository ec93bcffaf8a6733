// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"errors"
	"time"

	"keyferry/offline/internal/ceremony"
	"keyferry/offline/internal/hsm"
	"keyferry/pkg/byok"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/state"
	"keyferry/pkg/trust"
)

// carrier takes exports into the token, and stages them in the outbox.
type carrier struct {
	io       *cli.IO
	state    *state.State
	token    *hsm.Token // nil where no key goes into it
	kek      *trust.VerifiedKEK
	kekKnown bool   // to the ledger
	kekPath  string // absolute
	retain   bool
	wrap     *hsm.ProvenWrap // nil: in software
	verdicts []hsm.Verdict
	around   *surroundings
}

// chooseWrap settles where keys are wrapped. In the token, if that is proven;
// in software only by the operator's word, or where a rehearsal's own token can't.
func (c *carrier) chooseWrap(asked string) error {
	if asked == wrapSoftware {
		c.io.Warn("the keys are wrapped in software, as asked with --wrap software; this is recorded")
		return nil
	}
	var err error
	c.wrap, c.verdicts, err = c.token.ProveWrap()
	if control.Is(err, control.HSMWrapUnproven) && isPractice(c.state) && asked == "" {
		for _, v := range c.verdicts {
			c.io.Detail("wrap mechanism %s: %s, %s", v.Mechanism, v.Result, v.Reason)
		}
		c.io.Warn("the rehearsal's token does not wrap exactly as the vault asks, so the keys are wrapped in software; a real ceremony would stop here [%s]", control.HSMWrapUnproven.ID)
		return nil
	}
	return err
}

// carry wraps one key and brings it into the token. A dry run stops before the
// first change: what it made in the token ends with the session.
func (c *carrier) carry(e *export, dryRun bool) (err error) {
	e.record = e.newRecord()
	e.record.Warnings = append(e.record.Warnings, c.around.Warnings...)
	if e.managed {
		return c.carryManaged(e, dryRun)
	}
	keeps, err := c.token.Keeps()
	if err != nil {
		return err
	}
	if keeps {
		return c.carryStored(e, dryRun)
	}
	session, err := c.token.Import(e.forHSM.Key())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, session.Destroy()) }()
	proven, err := session.Prove(e.Public())
	if err != nil {
		return err
	}
	if e.ciphertext, err = c.wrapped(e, proven); err != nil {
		return err
	}
	c.io.Note("%s: in the token by %s; it signs and decrypts as its certificate says; wrapped in %s", e.id, session.Way, e.record.WrappedBy)
	e.record.Import = session.Way
	if dryRun {
		return proven.RehearseKeep(c.retain)
	}
	return c.keep(e, proven)
}

// carryStored is carry into a token that keeps all it is given: the ledger knows
// before the key comes in, under its own name at once. There it goes out in software
// only; a dry run leaves it out.
func (c *carrier) carryStored(e *export, dryRun bool) (err error) {
	if e.ciphertext, err = c.wrapped(e, nil); err != nil {
		return err
	}
	if dryRun {
		return nil
	}
	if err := c.begin(e); err != nil {
		return err
	}
	e.kept, err = c.token.Store(e.forHSM.Key(), e.Public(), hsm.KeepOptions{Label: e.id, RetainExtractable: c.retain, Resume: e.resume})
	if err != nil {
		return c.takeBack(e, err)
	}
	e.record.Attributes, e.record.Import = e.kept.Attributes, e.kept.Way
	c.io.Note("%s: in the token by %s; it signs and decrypts as its certificate says; wrapped in software", e.id, e.kept.Way)
	return nil
}

// softwareWrap names what byok.Wrap does.
const softwareWrap = "RSA-OAEP (SHA-1), AES-256-KWP"

func (c *carrier) wrapped(e *export, key *hsm.ProvenKey) ([]byte, error) {
	print := c.kek.Fingerprint()
	e.record.Token, e.record.KID, e.record.KEK, e.record.Verdicts = c.token.Info(), c.kek.KID(), &print, c.verdicts
	if c.retain {
		e.record.Warnings = append(e.record.Warnings, control.HSMRetained.ID)
	}
	if c.wrap != nil {
		e.record.WrappedBy, e.record.Mechanism = "token", c.wrap.Mechanism()
		return c.wrap.Wrap(key, c.kek.Public())
	}
	e.record.WrappedBy, e.record.Mechanism = "software", softwareWrap
	e.record.Warnings = append(e.record.Warnings, control.HSMWrapUnproven.ID)
	return byok.Wrap(rand.Reader, e.forHSM.Key(), c.kek.Public())
}

// first tells the ledger, before the first change, in what surroundings a key is carried
// and for which KEK.
func (c *carrier) first(e *export) error {
	if err := c.around.record(c.state); err != nil || c.kekKnown || e.managed {
		return err
	}
	c.kekKnown = true
	return c.state.Ledger.Append(time.Now(), ceremony.EventKEK, ceremony.KEKTaken{
		KID: c.kek.KID(), KEK: c.kek.Fingerprint(), Number: c.kek.Number(), Package: c.kek.Package(),
	})
}

// begin and undone tell the ledger that something is about to be done with a key, and
// that nothing of it is left.
func (c *carrier) begin(e *export) error {
	if err := c.first(e); err != nil {
		return err
	}
	if e.resume {
		return nil
	}
	return c.state.Ledger.Append(time.Now(), ceremony.EventImportBegun, ceremony.ImportBegun{ID: e.id, Key: e.fingerprint})
}

func (c *carrier) undone(e *export) error {
	return c.state.Ledger.Append(time.Now(), ceremony.EventImportUndone, ceremony.ImportBegun{ID: e.id, Key: e.fingerprint})
}

// keep makes the key a token object. The ledger knows before the token does, so
// that a run that is killed is taken up again.
func (c *carrier) keep(e *export, proven *hsm.ProvenKey) (err error) {
	if err := c.begin(e); err != nil {
		return err
	}
	e.kept, err = proven.Keep(hsm.KeepOptions{Label: e.id, RetainExtractable: c.retain, Resume: e.resume})
	if err != nil {
		return c.takeBack(e, err)
	}
	e.record.Attributes = e.kept.Attributes
	return nil
}

// settle stages what was carried, unless another program has stored one of the
// keys meanwhile. What can't be staged is taken out of the token again.
func (c *carrier) settle(exports []*export) error {
	var kept []*hsm.Kept
	for _, e := range exports {
		if e.kept != nil {
			kept = append(kept, e.kept)
		}
	}
	var failure error
	if len(kept) > 0 {
		failure = c.token.CheckAlone(kept...)
	}
	for _, e := range exports {
		if failure == nil {
			failure = c.stage(e)
		}
		if failure != nil {
			failure = c.takeBack(e, failure)
		}
	}
	return failure
}

// takeBack undoes what was begun, after a failure. If something of the key may be left
// in the token, it stays begun.
func (c *carrier) takeBack(e *export, failure error) error {
	left := control.Is(failure, control.HSMLeftover)
	if e.kept != nil {
		undo := e.kept.Remove()
		failure, left = errors.Join(failure, undo), undo != nil
	}
	if e.resume || left {
		return failure
	}
	return errors.Join(failure, c.undone(e))
}
