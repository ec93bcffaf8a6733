// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"time"

	"keyferry/bundle"
	"keyferry/offline/internal/hsm"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/filetype"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/inspect"
	"keyferry/pkg/keyid"
	"keyferry/pkg/secret"
	"keyferry/pkg/tpd"
)

// This file reads and checks TPD exports, for import and wrap.

// Exports says which TPDs are read, and how.
type Exports struct {
	Paths           []string
	IDs             []string // key identifiers, one for each path
	PEMs            []string // files of the keys of keyless TPDs, one for each path; or none
	Password        *cli.SecretFlags
	Roots           []fingerprint.Fingerprint // the root keys that a chain may end at; none: any
	AcceptTemplates []string
	Element         tpd.KeylessElement
	KeylessPassword string
}

// Values of Exports.KeylessPassword.
const (
	KeepPassword  = "keep"  // the export's
	FreshPassword = "fresh" // a one-time password that travels in the bundle
)

// check refuses what can be seen on the command line.
func (x Exports) check() error {
	if len(x.Paths) != len(x.IDs) {
		return control.CommandLine.Refuse("%d TPDs and %d key identifiers were given: want one each", len(x.Paths), len(x.IDs))
	}
	if len(x.PEMs) > 0 && len(x.PEMs) != len(x.Paths) {
		return control.CommandLine.Refuse("%d TPDs and %d files for --key-pem were given: want one each", len(x.Paths), len(x.PEMs)).
			WithHint("import the exports that carry their key in a command of their own")
	}
	seen := map[string]bool{SignerLabel: true}
	for _, id := range x.IDs {
		if err := keyid.Check("key identifier", id); err != nil {
			return err
		}
		if seen[id] {
			return control.CommandLine.Refuse("the key identifier %s is taken", id)
		}
		seen[id] = true
	}
	if x.KeylessPassword != KeepPassword && x.KeylessPassword != FreshPassword {
		return control.CommandLine.Refuse("--keyless-password is keep or fresh, not %s", control.Quote(x.KeylessPassword))
	}
	if _, err := tpd.ParseKeylessElement(string(x.Element)); err != nil {
		return control.CommandLine.Refuse("--keyless-element: %w", err)
	}
	return nil
}

// export is a TPD export that passed every check.
type export struct {
	tpd.Identity // of the key, as the checks proved it

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
		e.fingerprint = fingerprint.OfKey(e.Public())
		exports = append(exports, e)
		for _, f := range e.Report().Findings {
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

// checkOthers refuses keys that the ledger knows under another identifier, and
// GUIDs that it knows of another key.
func (j *Journal) checkOthers(exports []*export) error {
	for _, k := range j.Keys {
		for _, e := range exports {
			switch {
			case k.Key == e.fingerprint && k.ID != e.id:
				return control.ImportExists.Refuse("this key was imported already, as %s", k.ID)
			case k.Key != e.fingerprint && k.SLC == e.GUID():
				return control.TPDGUIDUnique.Refuse("%s and %s, which was imported before, are different keys with one GUID, %s", e.id, k.ID, k.SLC)
			}
		}
	}
	return nil
}

// Record is key.json: what was found and done, for the record. Nothing in it is
// secret.
type Record struct {
	Format      string         `json:"format"`
	Tool        string         `json:"tool"` // and its version
	ID          string         `json:"id"`
	Disposition string         `json:"disposition"` // a Microsoft-managed key has neither token nor KEK
	Time        time.Time      `json:"time"`
	Report      any            `json:"tpd"`
	Token       hsm.Info       `json:"token"`
	Import      string         `json:"imported_by"` // the PKCS#11 call; empty of a key that was in the token
	Attributes  hsm.Attributes `json:"attributes"`  // as the token reports them
	KID         string         `json:"kid"`         // of the KEK
	WrappedBy   string         `json:"wrapped_by"`  // token or software
	Mechanism   string         `json:"mechanism"`
	Verdicts    []hsm.Verdict  `json:"wrap_verdicts"`
	Warnings    []string       `json:"warnings"` // IDs of controls that hold only weakly, or were overridden

	KEK             *fingerprint.Fingerprint `json:"kek"`               // of its PKIX DER; null for a Microsoft-managed key
	OneTimePassword bool                     `json:"one_time_password"` // of the keyless TPD
}

// newRecord is the record before the token has to do with the key.
func (e *export) newRecord(tool string, around *surroundings) Record {
	warnings := []string{}
	for _, f := range e.Report().Findings {
		warnings = append(warnings, f.Control)
	}
	slices.Sort(warnings)
	disposition := bundle.DispositionHSM
	if e.managed {
		disposition = bundle.DispositionMicrosoftManaged
	}
	return Record{
		Format: "keyferry-key-v2", Tool: tool, ID: e.id, Disposition: disposition, Time: time.Now().UTC().Truncate(time.Second),
		Report: e.Report(), Verdicts: []hsm.Verdict{}, OneTimePassword: e.oneTime != nil,
		Warnings: append(slices.Compact(warnings), around.Warnings...),
	}
}

// Carried is a key that was carried, for people.
type Carried struct {
	Record
	Bits int    `json:"-"`
	SLC  string `json:"-"`
}
