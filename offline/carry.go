// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"keyferry/bundle"
	"keyferry/pkg/byok"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/hsm"
	"keyferry/pkg/secret"
	"keyferry/pkg/state"
	"keyferry/pkg/tpd"
	"keyferry/pkg/trust"
)

// export is a TPD export that passed every check, on its way.
type export struct {
	tpd.Identity // of the key, as the checks proved it

	id          string
	tpd         fingerprint.Fingerprint // of the file's bytes
	domain      *tpd.Domain             // to be cleared
	forHSM      *tpd.Checked            // nil: no key comes out of the TPD
	managed     bool                    // the key stays in its TPD
	leaves      tpd.Pieces              // the TPD without its key, or whole for a Microsoft-managed one
	oneTime     []byte                  // the password of leaves, if it is not the export's; to be cleared
	public      []byte                  // PKIX DER
	fingerprint fingerprint.Fingerprint // of public
	resume      bool                    // an earlier run was stopped while it changed the token
	record      keyRecord
	ciphertext  []byte         // the key, wrapped
	kept        *hsm.Kept      // the key in the token, once it is there
	stored      *hsm.StoredKey // the key that was there before
}

// readExports reads and checks all TPDs, and reports the problems of all.
func (o *importOptions) readExports(ctx context.Context, io *cli.IO) ([]*export, error) {
	passwords, err := o.password.Read(ctx, io, len(o.tpds))
	if err != nil {
		return nil, err
	}
	var exports []*export
	var problems []error
	for i, path := range o.tpds {
		e, err := o.readExport(io, path, passwords[i])
		clear(passwords[i])
		if err != nil {
			problems = append(problems, err)
			continue
		}
		e.id = o.ids[i]
		exports = append(exports, e)
	}
	for i, e := range exports {
		for _, other := range exports[:i] {
			switch {
			case e.fingerprint == other.fingerprint:
				problems = append(problems, control.ImportExists.Refuse("%s and %s are the same key", other.id, e.id))
			case e.GUID() == other.GUID():
				problems = append(problems, control.TPDGUIDUnique.Refuse("%s and %s are different keys with one GUID, %s", other.id, e.id, e.GUID()))
			}
		}
	}
	if len(problems) > 0 {
		clearAll(exports)
		return nil, errors.Join(problems...)
	}
	return exports, nil
}

func (o *importOptions) readExport(io *cli.IO, path string, password []byte) (*export, error) {
	file, err := cli.ReadInput(path)
	if err != nil {
		return nil, err
	}
	name := control.Plain(filepath.Base(path))
	e := &export{tpd: fingerprint.Of(file)}
	raw, err := tpd.Parse(file)
	if err != nil {
		return nil, control.About(name, err)
	}
	if e.domain, err = raw.Decrypt(password); err != nil {
		return nil, control.About(name, err)
	}
	e.forHSM, err = e.domain.Checked(time.Now(), o.roots...)
	switch {
	case err == nil:
		e.Identity = e.forHSM.Identity
		err = o.takeKeyAway(e, raw, password)
	case o.stored && control.Is(err, control.TPDKeyAbsent):
		err = o.checkKeyless(e, raw, password)
	case o.microsoftManaged && control.Is(err, control.TPDMode1):
		e.leaves = tpd.Pieces{file}
		e.Identity, err = o.checkManaged(e.domain)
		e.managed = true
	}
	if err != nil {
		e.domain.Clear()
		return nil, control.About(name, err)
	}
	if e.public, err = x509.MarshalPKIXPublicKey(e.Public()); err != nil {
		return nil, err
	}
	e.fingerprint = fingerprint.Of(e.public)
	for _, f := range e.Report().Findings {
		io.Warn("%s: %s [%s]", name, f.Message, f.Control)
	}
	io.Note("%s: every check holds; the key of SLC %s, %s", name, e.GUID(), e.fingerprint)
	return e, nil
}

// takeKeyAway makes the keyless TPD, under the export's password or a one-time
// password of its own.
func (o *importOptions) takeKeyAway(e *export, raw *tpd.Export, password []byte) (err error) {
	if o.keylessPassword == keylessFresh {
		secret.Do(func() { e.leaves, e.oneTime, err = raw.KeylessFresh(o.element, password) })
		return err
	}
	e.leaves = raw.Keyless(o.element)
	return nil
}

func clearAll(exports []*export) {
	for _, e := range exports {
		e.domain.Clear()
		clear(e.oneTime)
	}
}

// carrier takes exports into the token and the outbox.
type carrier struct {
	io       *cli.IO
	state    *state.State
	token    *hsm.Token // nil where no key goes into it
	kek      *trust.VerifiedKEK
	retain   bool
	wrap     *hsm.ProvenWrap // nil: in software
	verdicts []hsm.Verdict
	around   *surroundings
}

// chooseWrap settles where keys are wrapped. In the token, if that is proven;
// in software only by the operator's word, or in a rehearsal.
func (c *carrier) chooseWrap(asked string) error {
	if asked == wrapSoftware {
		c.io.Warn("the keys are wrapped in software, as asked with --wrap software; this is recorded")
		return nil
	}
	var err error
	c.wrap, c.verdicts, err = c.token.ProveWrap()
	if control.Is(err, control.HSMWrapUnproven) && c.state.Rehearsal && asked == "" {
		for _, v := range c.verdicts {
			c.io.Detail("wrap mechanism %s: %s, %s", v.Mechanism, v.Result, v.Reason)
		}
		c.io.Warn("this token is not proven to wrap as the vault asks (--verbose says why) [%s]", control.HSMWrapUnproven.ID)
		c.io.Warn("this is a rehearsal, so the keys are wrapped in software; a real ceremony would stop here")
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
		return nil
	}
	return c.keep(e, proven)
}

// newRecord is the record before the token has to do with the key.
func (e *export) newRecord() keyRecord {
	return keyRecord{
		Format: "keyferry-key-v1", ID: e.id, Disposition: e.disposition(), Time: time.Now().UTC().Truncate(time.Second),
		Report: e.Report(), Verdicts: []hsm.Verdict{}, OneTimePassword: e.oneTime != nil, Warnings: e.warnings(),
	}
}

// warnings lists the controls that hold only weakly for the TPD, once each.
func (e *export) warnings() []string {
	ids := []string{}
	for _, f := range e.Report().Findings {
		ids = append(ids, f.Control)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// softwareWrap names what byok.Wrap does.
const softwareWrap = "RSA-OAEP (SHA-1), AES-256-KWP"

func (c *carrier) wrapped(e *export, key *hsm.ProvenKey) ([]byte, error) {
	e.record.Token, e.record.KEK, e.record.Verdicts = c.token.Info(), c.kek.KID(), c.verdicts
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

// begin and undone tell the ledger in what surroundings, and that something is about to be done with a
// key, and that nothing of it is left.
func (c *carrier) begin(e *export) error {
	if err := c.around.record(c.state); err != nil {
		return err
	}
	if e.resume {
		return nil
	}
	return c.state.Ledger.Append(time.Now(), eventImportBegun, importBegun{e.id, e.fingerprint})
}

func (c *carrier) undone(e *export) error {
	return c.state.Ledger.Append(time.Now(), eventImportUndone, importBegun{e.id, e.fingerprint})
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

// stagedName is, beside the files of the bundle, a file of the outbox: the
// key's entry in the index.
const stagedName = "staged.json"

// stage writes the outbox's directory of the key, whole or not at all, then
// the ledger. A Microsoft-managed key has no ciphertext.
func (c *carrier) stage(e *export) error {
	record, err := json.MarshalIndent(e.record, "", "  ")
	if err != nil {
		return err
	}
	entry, err := json.Marshal(bundle.Key{
		ID: e.id, Disposition: e.record.Disposition, SLC: e.GUID(), PublicKey: e.public,
		KID: e.record.KEK, WrappedBy: e.record.WrappedBy, Mechanism: e.record.Mechanism, Warnings: e.record.Warnings, Files: []bundle.File{},
	})
	if err != nil {
		return err
	}
	if err := durable.MkdirAll(c.state.Path("outbox"), 0o700); err != nil {
		return err
	}
	outbox := c.state.Path("outbox", e.id)
	// What a run that was killed may have staged, unknown to the ledger.
	if err := durable.RemoveIfThere(outbox); err != nil {
		return err
	}
	err = durable.NewDir(outbox, 0o700, func(dir string) error {
		if err := durable.CreateFrom(filepath.Join(dir, e.leavesName()), 0o600, func(f *os.File) error { return e.leaves.WriteInto(f) }); err != nil {
			return err
		}
		files := map[string][]byte{bundle.RecordName: append(record, '\n'), stagedName: entry}
		if e.ciphertext != nil {
			files[bundle.WrappedName] = e.ciphertext
		}
		if e.oneTime != nil {
			files[bundle.OneTimeName] = e.oneTime
		}
		for name, data := range files {
			if err := durable.Create(filepath.Join(dir, name), data, 0o600); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("stage %s: %w", e.id, err)
	}
	event := eventImported
	if e.stored != nil {
		event = eventWrapped
	}
	err = c.state.Ledger.Append(time.Now(), event, imported{
		ID: e.id, Disposition: e.record.Disposition, Key: e.fingerprint, SLC: e.GUID(), TPD: e.tpd, KEK: e.record.KEK,
		WrappedBy: e.record.WrappedBy, Mechanism: e.record.Mechanism, Wrapped: fingerprint.Of(e.ciphertext), Retained: c.retain,
		Warnings: e.record.Warnings,
	})
	if err != nil {
		return errors.Join(err, durable.Remove(outbox))
	}
	return nil
}
