// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"time"

	"keyferry/offline/internal/hsm"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/filetype"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/inspect"
	"keyferry/pkg/secret"
	"keyferry/pkg/tpd"
)

// export is a TPD export that passed every check, on its way.
type export struct {
	tpd.Identity // of the key, as the checks proved it

	id          string
	tpd         fingerprint.Fingerprint // of the file's bytes
	domain      *tpd.Domain             // to be cleared
	forHSM      *tpd.Checked            // nil: no key comes out of the TPD
	managed     bool                    // the key stays in its TPD
	leaves      []byte                  // the TPD without its key, or whole for a Microsoft-managed one
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
	passwords, err := inspect.Passwords(ctx, io, o.password, o.tpds)
	if err != nil {
		return nil, err
	}
	var exports []*export
	var problems []error
	for i := range o.tpds {
		e, err := o.readExport(io, i, passwords[i])
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

func (o *importOptions) readExport(io *cli.IO, i int, password []byte) (*export, error) {
	path := o.tpds[i]
	file, err := cli.ReadAtMost(path, tpd.MaxSize)
	if err != nil {
		return nil, err
	}
	name := inspect.FileName(path)
	e := &export{tpd: fingerprint.Of(file)}
	raw, err := tpd.Parse(file)
	if err != nil {
		return nil, control.About(name, filetype.Explain(err, file, filetype.TPD))
	}
	if e.domain, err = raw.Decrypt(password); err != nil {
		return nil, control.About(name, err)
	}
	if len(o.pems) > 0 {
		if err := useKey(e.domain, o.pems[i]); err != nil {
			return nil, control.About(inspect.FileName(o.pems[i]), err)
		}
	}
	e.forHSM, err = e.domain.Checked(o.terms())
	switch {
	case err == nil:
		e.Identity = e.forHSM.Identity
		err = o.takeKeyAway(e)
	case o.stored && (control.Is(err, control.TPDKeyAbsent) || control.Is(err, control.TPDKeyInHSM)):
		err = o.checkKeyless(e)
	case o.microsoftManaged && control.Is(err, control.TPDMode1):
		e.leaves = file
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
	e.fingerprint = fingerprint.OfKey(e.Public())
	for _, f := range e.Report().Findings {
		io.Warn("%s: %s [%s]", name, f.Message, f.Control)
	}
	io.Note("%s: every check holds; the key of SLC %s, %s", name, e.GUID(), e.fingerprint)
	return e, nil
}

// maxPEM bounds a PEM file in bytes.
const maxPEM = 64 << 10

// useKey reads the key of a keyless TPD from its PEM file.
func useKey(domain *tpd.Domain, path string) error {
	file, err := cli.ReadAtMost(path, maxPEM)
	if err != nil {
		return err
	}
	defer clear(file[:cap(file)])
	if len(file) > maxPEM {
		return control.TPDKeyPEM.Refuse("the file has more than %d bytes", maxPEM)
	}
	return domain.UseKey(file)
}

// terms are those of the checks of every TPD.
func (o *importOptions) terms() tpd.Terms {
	return tpd.Terms{Now: time.Now(), PinnedRoots: o.roots, AcceptTemplates: o.accept, FreshPassword: o.keylessPassword == keylessFresh}
}

// takeKeyAway makes the keyless TPD, under the export's password or a one-time
// password of its own.
func (o *importOptions) takeKeyAway(e *export) (err error) {
	if o.keylessPassword == keylessFresh {
		secret.Do(func() { e.leaves, e.oneTime, err = e.domain.KeylessFresh(o.element) })
		return err
	}
	e.leaves, err = e.domain.Keyless(o.element)
	return err
}

func clearAll(exports []*export) {
	for _, e := range exports {
		e.domain.Clear()
		clear(e.oneTime)
	}
}

// newRecord is the record before the token has to do with the key.
func (e *export) newRecord() keyRecord {
	return keyRecord{
		Format: "keyferry-key-v2", Tool: "keyferry offline, " + version, ID: e.id, Disposition: e.disposition(), Time: time.Now().UTC().Truncate(time.Second),
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
