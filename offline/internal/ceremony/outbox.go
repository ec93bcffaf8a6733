// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"keyferry/bundle"
	"keyferry/offline/internal/hsm"
	"keyferry/offline/internal/module"
	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/state"
)

// This file knows the outbox, where keys wait to be sealed: a directory for each,
// with the files that the bundle will have, and the key's entry in the index.

// stagedName is the file of that entry.
const stagedName = "staged.json"

func outboxDir(s *state.State, id string) string { return s.Path("outbox", id) }

// stage writes the outbox's directory of the key, whole or not at all, then
// the ledger.
func (c *carrying) stage(e *export, event string) error {
	outbox := outboxDir(c.state, e.id)
	if err := durable.MkdirAll(filepath.Dir(outbox), 0o700); err != nil {
		return err
	}
	// What a run that was killed may have staged, unknown to the ledger.
	if err := durable.RemoveIfThere(outbox); err != nil {
		return err
	}
	if err := durable.NewDir(outbox, 0o700, e.writeInto); err != nil {
		return fmt.Errorf("stage %s: %w", e.id, err)
	}
	if err := c.state.Ledger.Append(time.Now(), event, c.staged(e)); err != nil {
		return errors.Join(err, durable.Remove(outbox))
	}
	return nil
}

// writeInto writes the key's files. A Microsoft-managed key has no ciphertext.
func (e *export) writeInto(dir string) error {
	record, err := json.MarshalIndent(e.record, "", "  ")
	if err != nil {
		return err
	}
	entry, err := json.Marshal(bundle.Key{
		ID: e.id, Disposition: e.record.Disposition, SLC: e.GUID(), PublicKey: e.public,
		KID: e.record.KID, KEK: e.record.KEK, WrappedBy: e.record.WrappedBy, Mechanism: e.record.Mechanism, Warnings: e.record.Warnings, Files: []bundle.File{},
	})
	if err != nil {
		return err
	}
	leaves := bundle.KeylessName(e.id)
	if e.managed {
		leaves = bundle.WithKeyName(e.id)
	}
	files := map[string][]byte{leaves: e.leaves, bundle.RecordName: append(record, '\n'), stagedName: entry}
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
}

// staged is what the ledger says of the key. Of one that is in no HSM, nothing
// is wrapped or retained there.
func (c *carrying) staged(e *export) Imported {
	record := Imported{
		ID: e.id, Disposition: e.record.Disposition, Key: e.fingerprint, SLC: e.GUID(), TPD: e.tpd, Package: c.kekPath, KEK: e.record.KID,
		WrappedBy: e.record.WrappedBy, Mechanism: e.record.Mechanism, Warnings: e.record.Warnings,
		Accepted: e.report.Accepted,
	}
	if !e.managed {
		record.Wrapped, record.Retained, record.KEKPrint = fingerprint.Of(e.ciphertext), c.retain, e.record.KEK
	}
	return record
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
	Token       module.Info    `json:"token"`
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
	for _, f := range e.report.Findings {
		warnings = append(warnings, f.Control)
	}
	slices.Sort(warnings)
	disposition := bundle.DispositionHSM
	if e.managed {
		disposition = bundle.DispositionMicrosoftManaged
	}
	return Record{
		Format: "keyferry-key-v2", Tool: tool, ID: e.id, Disposition: disposition, Time: time.Now().UTC().Truncate(time.Second),
		Report: e.report, Verdicts: []hsm.Verdict{}, OneTimePassword: e.oneTime != nil,
		Warnings: append(slices.Compact(warnings), around.Warnings...),
	}
}

// Carried is a key that was carried, for people.
type Carried struct {
	Record
	Bits int    `json:"-"`
	SLC  string `json:"-"`
}

// recordWrap notes in a key's record by what it is wrapped for the KEK.
func (c *carrying) recordWrap(e *export, token module.Info, by, mechanism string, verdicts []hsm.Verdict) {
	print := c.kek.Fingerprint()
	e.record.Token, e.record.KID, e.record.KEK, e.record.Verdicts = token, c.kek.KID(), &print, verdicts
	e.record.WrappedBy, e.record.Mechanism = by, mechanism
	if c.retain {
		e.record.Warnings = append(e.record.Warnings, control.HSMRetained.ID)
	}
}

// maxLedger is the room, in bytes, that a bundle keeps for the copy of the ledger.
const maxLedger = 16 << 20

// fitting takes as many of the staged keys, one at least, as may be in a bundle
// together.
func fitting(s *state.State, ids []string) ([]string, error) {
	var total int64
	for i, id := range ids {
		size, err := stagedSize(s, id)
		if err != nil {
			return nil, err
		}
		if total += size; i > 0 && total > bundle.MaxContents-maxLedger || i == bundle.MaxKeys {
			return ids[:i:i], nil
		}
	}
	return ids, nil
}

// stagedFiles lists the files of a key.
func stagedFiles(s *state.State, id string) ([]os.DirEntry, error) {
	files, err := os.ReadDir(outboxDir(s, id))
	if err != nil {
		err = control.StateDamaged.Refuse("%s can't be read: %w", outboxDir(s, id), err)
	}
	return files, err
}

func stagedSize(s *state.State, id string) (total int64, err error) {
	files, err := stagedFiles(s, id)
	if err != nil {
		return 0, err
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			return 0, control.StateDamaged.Refuse("%s can't be read: %w", outboxDir(s, id), err)
		}
		total += info.Size()
	}
	return total, nil
}

// stagedKey reads a key from the outbox.
func stagedKey(s *state.State, id string) (bundle.KeyContent, error) {
	var k bundle.KeyContent
	if err := s.ReadJSON(filepath.Join("outbox", id, stagedName), &k.Key); err != nil {
		return k, control.StateDamaged.Refuse("%s can't be read: %w", outboxDir(s, id), err)
	}
	files, err := stagedFiles(s, id)
	if err != nil {
		return k, err
	}
	for _, f := range files {
		if f.Name() == stagedName {
			continue
		}
		data, err := os.ReadFile(filepath.Join(outboxDir(s, id), f.Name()))
		if err != nil {
			return k, err
		}
		k.Contents = append(k.Contents, bundle.Content{Path: bundle.KeyPath(id, f.Name()), Data: data})
	}
	return k, nil
}

// clearOutbox removes what is in a bundle.
func clearOutbox(s *state.State, ids []string) error {
	for _, id := range ids {
		if err := durable.RemoveIfThere(outboxDir(s, id)); err != nil {
			return err
		}
	}
	return nil
}
