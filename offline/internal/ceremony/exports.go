// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"context"
	"crypto/x509"
	"errors"
	"time"

	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/filetype"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/inspect"
	"keyferry/pkg/secret"
	"keyferry/pkg/tpd"
)

// This file reads and checks TPD exports, for import and wrap.

// export is a TPD export that passed every check.
type export struct {
	tpd.Identity // of the key, as the checks proved it
	report       *inspect.Report

	id          string
	tpd         fingerprint.Fingerprint // of the file's bytes
	domain      *tpd.Domain             // to be cleared
	withKey     *tpd.Checked            // nil: no key comes out of the TPD
	managed     bool                    // the key stays in its TPD, to be Microsoft-managed
	leaves      []byte                  // the TPD without its key, or whole for a Microsoft-managed one
	oneTime     []byte                  // the password of leaves, if it is not the export's; to be cleared
	public      []byte                  // PKIX DER
	fingerprint fingerprint.Fingerprint // of public
	ciphertext  []byte                  // the key, wrapped
	record      Record
}

func clearAll(exports []*export) {
	for _, e := range exports {
		e.domain.Clear()
		clear(e.oneTime)
	}
}

// read reads and checks all TPDs, and reports the problems of all. judge makes the
// checks that the command asks for, and sets the key's identity and what leaves of the
// TPD. The caller clears the exports.
func (x Exports) read(ctx context.Context, io *cli.IO, judge func(e *export, file []byte) error) ([]*export, error) {
	passwords, err := inspect.Passwords(ctx, io, x.Password, x.Paths)
	if err != nil {
		return nil, err
	}
	var exports []*export
	one := func(i int) error {
		name := inspect.FileName(x.Paths[i])
		file, err := cli.ReadAtMost(x.Paths[i], tpd.MaxSize)
		if err != nil {
			return err
		}
		e := &export{id: x.IDs[i], tpd: fingerprint.Of(file)}
		raw, err := tpd.Parse(file)
		if err != nil {
			return filetype.Explain(err, file, filetype.TPD)
		}
		if e.domain, err = raw.Decrypt(passwords[i]); err != nil {
			return err
		}
		if len(x.PEMs) > 0 {
			err = control.About(inspect.FileName(x.PEMs[i]), useKey(e.domain, x.PEMs[i]))
		}
		if err == nil {
			err = judge(e, file)
		}
		if err == nil {
			e.public, err = x509.MarshalPKIXPublicKey(e.Public())
		}
		if err != nil {
			e.domain.Clear()
			return err
		}
		e.fingerprint, e.report = fingerprint.Of(e.public), inspect.NewReport(e.Result())
		exports = append(exports, e)
		for _, f := range e.report.Findings {
			io.Warn("%s: %s [%s]", name, f.Message, f.Control)
		}
		io.Note("%s: every check holds; the key of SLC %s, %s", name, e.GUID(), e.fingerprint)
		return nil
	}
	var problems []error
	for i, path := range x.Paths {
		if err := one(i); err != nil {
			problems = append(problems, control.About(inspect.FileName(path), err))
		}
		clear(passwords[i])
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
	if err := errors.Join(problems...); err != nil {
		clearAll(exports)
		return nil, err
	}
	return exports, nil
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
func (x Exports) terms() tpd.Terms {
	return tpd.Terms{Now: time.Now(), PinnedRoots: x.Roots, AcceptTemplates: x.AcceptTemplates, FreshPassword: x.KeylessPassword == FreshPassword}
}

// takeKeyAway makes the keyless TPD, under the export's password or a one-time
// password of its own.
func (x Exports) takeKeyAway(e *export) (err error) {
	if x.KeylessPassword == FreshPassword {
		secret.Do(func() { e.leaves, e.oneTime, err = e.domain.KeylessFresh(x.Element) })
		return err
	}
	e.leaves, err = e.domain.Keyless(x.Element)
	return err
}
