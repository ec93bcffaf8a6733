// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"context"
	"errors"
	"strings"

	"keyferry/online/internal/tenant"
	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
)

// This file is the part of an upload that has to do with the tenant.

// askTenant asks the tenant which of the keys it has, and refuses one that it has in
// another way than this upload brings it. The tenant's other keys are left alone.
func (u *upload) askTenant(ctx context.Context) error {
	if err := u.list(ctx); err != nil {
		return err
	}
	var problems []error
	for _, step := range u.steps {
		if step.there == nil || step.refusal != nil { // by the vault: where the key is there is not known
			continue
		}
		if !u.isOurs(step) {
			step.refusal = step.differs()
			problems = append(problems, step.refusal)
		}
	}
	return errors.Join(problems...)
}

// list asks for the tenant's list.
func (u *upload) list(ctx context.Context) error {
	keys, err := u.cloud.Tenant.Keys(ctx)
	if err != nil {
		return err
	}
	bySLC := map[string]*tenant.Key{}
	for i := range keys {
		bySLC[keys[i].KeyIdentifier] = &keys[i]
	}
	for _, step := range u.steps {
		step.there = bySLC[step.Key.SLC]
	}
	return nil
}

// isOurs reports whether the tenant's key is what this upload brings, or has brought.
// Of a Microsoft-managed key the tenant shows neither URL nor public key: it is ours
// by its identifier and type if it was not there before the import. Another one that
// shows neither must come from this run, or be known to the ledger.
func (u *upload) isOurs(s *step) bool {
	there, known := s.there, u.known(s)
	recorded := s.imported || known != nil && known.Tenant != ""
	shows := len(there.PublicKey) > 0
	if s.Key.MicrosoftManaged() {
		return there.KeyType == tenant.MicrosoftManaged && there.KeyURL == "" && (shows && there.Holds(s.Public) || !shows && (recorded || u.journal.Begun[s.Key.SLC]))
	}
	return there.KeyType == tenant.CustomerManaged && (there.KeyURL != "" && there.KeyURL == s.url || there.KeyURL == "" && (there.Holds(s.Public) || recorded))
}

func (s *step) differs() error {
	return control.RMSKeyExists.Refuse("the tenant has the key %s already, and not as it is brought here: it is %s, with the key URL %s", s.Key.SLC, control.Plain(string(s.there.KeyType)), control.Quote(s.there.KeyURL)).
		WithHint("look at it with Get-AipServiceKeys: it did not come from this upload")
}

// enterTenant brings the TPDs into the tenant and makes one key active. The tenant's
// list is asked for before the imports and after them, never for each key; of what it
// does not have the ledger takes note, for a run that is stopped behind an import.
func (u *upload) enterTenant(ctx context.Context) error {
	if err := u.askTenant(ctx); err != nil {
		return err
	}
	var begun TPDsBegun
	for _, step := range u.steps {
		if step.there == nil && !u.journal.Begun[step.Key.SLC] {
			begun.SLCs = append(begun.SLCs, step.Key.SLC)
		}
	}
	if len(begun.SLCs) > 0 {
		if err := u.journal.Record(EventTPDsBegun, begun); err != nil {
			return err
		}
	}
	if err := u.importTPDs(ctx); err != nil {
		return err
	}
	return u.activate(ctx)
}

// importTPDs imports the TPDs that the tenant does not have, then asks for its list,
// once for all of them, and records each key as that shows it. An import that fails
// ends the imports; those before it are recorded all the same.
func (u *upload) importTPDs(ctx context.Context) error {
	var failed error
	changed := false
	for i, step := range u.steps {
		u.io.Progress("importing TPDs into the tenant", i, len(u.steps))
		if step.there != nil {
			continue
		}
		err := u.cloud.Tenant.ImportTPD(ctx, tenant.TPDImport{
			File: tpdName(step.Key), TPD: step.TPD, Password: step.password, MicrosoftManaged: step.Key.MicrosoftManaged(), KeyURL: step.url, FriendlyName: step.friendlyName,
		})
		if err != nil {
			failed = u.book(step, u.withGrants(err))
			break
		}
		step.imported, changed = true, true
	}
	u.io.Progress("", len(u.steps), len(u.steps))
	if changed {
		if err := u.list(ctx); err != nil {
			return errors.Join(failed, err)
		}
	}
	for _, step := range u.steps {
		if step.there == nil && !step.imported { // the one that failed, and those behind it
			continue
		}
		if err := u.recordListed(step); err != nil {
			return errors.Join(failed, u.book(step, err))
		}
	}
	return failed
}

// recordListed records a key as the tenant lists it.
func (u *upload) recordListed(step *step) error {
	switch {
	case step.there == nil:
		return control.RMSKeyMissing.Refuse("the TPD of %s was imported without an error, and the tenant does not list its key %s", step.Key.ID, step.Key.SLC).
			WithHint("look at the tenant's keys with Get-AipServiceKeys, then run the same command again")
	case !u.isOurs(step):
		return step.differs()
	}
	u.io.Note("%s: its TPD is in the tenant, %s", step.Key.ID, strings.ToLower(string(step.there.Status)))
	return u.journal.recordTenant(TPDImported{step.Key.ID, step.Key.SLC, fingerprint.OfKey(step.Public), string(step.there.Status), u.request.Way, nil, step.licensing})
}

// recordTenant notes what the tenant lists of a key, unless that is known. That a
// key is active is an event of its own: with it the former one is archived.
func (j *Journal) recordTenant(now TPDImported) error {
	isKnown := func() bool {
		known := j.Key(now.ID)
		return known != nil && known.Tenant == now.Status && j.Refused[now.ID] == ""
	}
	if isKnown() {
		return nil
	}
	active := now.Status == StatusActive
	if active {
		now.Status = StatusArchived
	}
	if !isKnown() {
		if err := j.Record(EventTPDImported, now); err != nil {
			return err
		}
	}
	if active {
		return j.recordActive(now.ID, now.By)
	}
	return nil
}

// recordActive notes that a key is the active one, and that one of 1024 bits is.
func (j *Journal) recordActive(id string, by Way) error {
	a := Activated{ID: id, By: by, Warnings: []string{}}
	if j.Key(id).KeyURL == "" { // Microsoft-managed
		a.Warnings = append(a.Warnings, control.RMSActive1024.ID)
	}
	return j.Record(EventActivated, a)
}

// activate makes the one key active, unless it is, and confirms it with the
// tenant's list.
func (u *upload) activate(ctx context.Context) error {
	step := u.active
	if step == nil {
		return nil
	}
	if step.there.Status != tenant.Active {
		if err := u.cloud.Tenant.SetActive(ctx, step.Key.SLC); err != nil {
			return err
		}
		if err := u.askTenant(ctx); err != nil {
			return err
		}
		if step.there == nil || step.there.Status != tenant.Active {
			return control.RMSActive.Refuse("the tenant does not list %s as active", step.Key.ID)
		}
	}
	u.io.Note("%s: active in the tenant", step.Key.ID)
	if u.journal.Key(step.Key.ID).Tenant == StatusActive {
		return nil
	}
	return u.journal.recordActive(step.Key.ID, u.request.Way)
}
