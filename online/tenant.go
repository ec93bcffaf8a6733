// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"

	"keyferry/online/internal/ceremony"
	"keyferry/online/internal/tenant"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/state"
)

type way = ceremony.Way

// wayFile keeps the way that was chosen at init.
const wayFile = "tenant.json"

type wayChoice struct {
	Tenant way `json:"tenant"`
}

// chooseWay reads --tenant; empty is the default. A rehearsal never gets to a
// real tenant by itself.
func chooseWay(name string, rehearsal bool) (way, error) {
	switch w := way(name); {
	case w == "" && rehearsal:
		return ceremony.ByPractice, nil
	case w == "" && runtime.GOOS == "windows":
		return ceremony.ByPowerShell, nil
	case w == "":
		return ceremony.ByKit, nil
	case w == ceremony.ByKit, w == ceremony.ByPowerShell && !rehearsal, w == ceremony.ByPractice && rehearsal:
		return w, nil
	case w == ceremony.ByPowerShell:
		return "", control.TrustRehearsal.Refuse("--tenant powershell: a rehearsal never reaches a real tenant")
	case w == ceremony.ByPractice:
		return "", control.TrustRehearsal.Refuse("--tenant practice: the practice tenant is for rehearsals only")
	}
	return "", control.CommandLine.Refuse("--tenant is %s, which is neither powershell nor kit", control.Quote(name))
}

// wayInto is --tenant of this run, or else of init.
func wayInto(s *state.State, name string) (way, error) {
	if name != "" {
		return chooseWay(name, s.Rehearsal)
	}
	var chosen wayChoice
	if err := s.ReadJSON(wayFile, &chosen); err != nil {
		return "", control.StateDamaged.Refuse("the way into the tenant can't be read: %w", err)
	}
	return chooseWay(string(chosen.Tenant), s.Rehearsal)
}

// withTenant runs f with a tenant to drive, where the way is one that drives
// it: for PowerShell signed in while f runs, for the kit without.
func withTenant(ctx context.Context, io *cli.IO, w way, c cloud, f func(c cloud) error) (err error) {
	switch w {
	case ceremony.ByKit:
		c.tenant = nil
	case ceremony.ByPowerShell:
		session, err := signInToTenant(ctx, io, c.azure)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, session.Close()) }()
		c.tenant = session
	}
	return f(c)
}

// signInToTenant starts Windows PowerShell and signs in, in that cloud of Azure.
func signInToTenant(ctx context.Context, io *cli.IO, azure string) (*tenant.PowerShell, error) {
	session, err := startPowerShell(ctx, io)
	if err != nil {
		return nil, err
	}
	if err := connect(ctx, io, session, azure); err != nil {
		return nil, errors.Join(err, session.Close())
	}
	return session, nil
}

func connect(ctx context.Context, io *cli.IO, session *tenant.PowerShell, azure string) error {
	io.Note("signing in to Azure RMS, in a window of its own")
	return session.Connect(ctx, azure)
}

// startPowerShell finds Windows PowerShell and checks what is in it. With
// --verbose, what the module says is shown.
func startPowerShell(ctx context.Context, io *cli.IO) (*tenant.PowerShell, error) {
	path, err := tenant.FindPowerShell()
	if err != nil {
		return nil, err
	}
	return tenant.Start(ctx, path, func(line string) { io.Detail("AIPService: %s", control.Quote(line)) })
}

// foreseeTenant asks the tenant which of the keys it has, and refuses one that it
// has otherwise than this upload brings it.
func (u *upload) foreseeTenant(ctx context.Context) error {
	keys, err := u.cloud.tenant.Keys(ctx)
	if err != nil {
		return err
	}
	var problems []error
	for _, step := range u.plan.steps {
		switch there := find(keys, step.key.SLC); {
		case there == nil || step.refusal != nil: // by the vault: where the key is there is not known
		case u.isOurs(step, there):
			u.io.Note("the TPD of %s is in the tenant already, %s", step.key.ID, strings.ToLower(string(there.Status)))
		default:
			step.refusal = step.otherwise(there)
			problems = append(problems, step.refusal)
		}
	}
	return errors.Join(problems...)
}

// withGrant gives the exact command where the service cannot use a key.
func (u *upload) withGrant(err error) error {
	if refusal := new(control.Refusal); !u.state.Rehearsal && errors.As(err, &refusal) && refusal.Control.ID == control.RMSKeyURL.ID {
		return refusal.WithHint("let Azure RMS get, decrypt and sign with the keys, then run the same command again:\n%s", u.grants())
	}
	return err
}

// grants are the commands that let Azure RMS use the keys of the plan.
func (u *upload) grants() string {
	var commands []string
	for _, step := range u.plan.steps {
		if step.key.MicrosoftManaged() {
			continue
		}
		for _, c := range u.cloud.vault.GrantCommands(tenant.ServicePrincipal, step.vaultName) {
			if !slices.Contains(commands, c) {
				commands = append(commands, c)
			}
		}
	}
	return strings.Join(commands, "\n")
}

func (u *upload) importTPD(ctx context.Context, step *step) error {
	there, err := u.tenantKey(ctx, step.key.SLC)
	if err != nil {
		return err
	}
	if there == nil {
		made, err := u.cloud.tenant.ImportTPD(ctx, tenant.TPDImport{
			TPD: step.tpd, Password: step.password, MicrosoftManaged: step.key.MicrosoftManaged(), KeyURL: step.keyURL, FriendlyName: step.friendlyName,
		})
		if err != nil {
			return err
		}
		there = &made
	}
	if !u.isOurs(step, there) {
		return step.otherwise(there)
	}
	u.io.Note("%s: its TPD is in the tenant, %s", step.key.ID, strings.ToLower(string(there.Status)))
	return u.recordTenant(ceremony.TPDImported{ID: step.key.ID, SLC: step.key.SLC, Key: fingerprint.OfKey(step.public), Status: string(there.Status), By: u.way})
}

// recordTenant notes what the tenant lists of a key, unless that is known. That
// a key is active is an event of its own: with it the former one is archived.
func (u *upload) recordTenant(now ceremony.TPDImported) error {
	known := u.history.Key(now.ID)
	isKnown := func() bool {
		return known != nil && known.Tenant == now.Status && u.history.Refused[now.ID] == ""
	}
	if isKnown() {
		return nil
	}
	active := now.Status == ceremony.StatusActive
	if active {
		now.Status = ceremony.StatusArchived
	}
	if !isKnown() {
		if err := u.history.Record(ceremony.EventTPDImported, now); err != nil {
			return err
		}
	}
	if active {
		return u.recordActive(now.ID, now.By)
	}
	return nil
}

// recordActive notes that a key is the active one, and that one of 1024 bits is.
func (u *upload) recordActive(id string, by way) error {
	a := ceremony.Activated{ID: id, By: by, Warnings: []string{}}
	if u.history.Key(id).KeyURL == "" { // Microsoft-managed
		a.Warnings = append(a.Warnings, control.RMSActive1024.ID)
	}
	return u.history.Record(ceremony.EventActivated, a)
}

// isOurs reports whether a key of the tenant is what this upload brings, or has
// brought: the tenant may show neither a key's URL nor a public key that can be
// read, and then the ledger's word stands.
func (u *upload) isOurs(s *step, there *tenant.Key) bool {
	known := u.history.Key(s.key.ID)
	recorded := known != nil && known.Tenant != "" && there.KeyURL == "" && (there.KeyType == tenant.MicrosoftManaged) == s.key.MicrosoftManaged()
	return recorded || s.is(there)
}

// is reports whether a key of the tenant is the one that this step brings, in
// the way that it brings it.
func (s *step) is(there *tenant.Key) bool {
	if s.key.MicrosoftManaged() {
		return there.KeyType == tenant.MicrosoftManaged && there.KeyURL == "" && there.Holds(s.public)
	}
	return there.KeyType == tenant.CustomerManaged && (there.KeyURL == s.keyURL || there.KeyURL == "" && there.Holds(s.public))
}

func (s *step) otherwise(there *tenant.Key) error {
	return control.RMSKeyExists.Refuse("the tenant has the key %s otherwise: it is %s, with the key URL %s", s.key.SLC, there.KeyType, control.Quote(there.KeyURL)).
		WithHint("look at it with Get-AipServiceKeys: it did not come from this upload")
}

// tenantKey looks a key up in the tenant's list, nil if it is not there.
func (u *upload) tenantKey(ctx context.Context, slc string) (*tenant.Key, error) {
	keys, err := u.cloud.tenant.Keys(ctx)
	if err != nil {
		return nil, err
	}
	return find(keys, slc), nil
}

// find returns the key with that identifier, nil if it is not there.
func find(keys []tenant.Key, slc string) *tenant.Key {
	i := slices.IndexFunc(keys, func(k tenant.Key) bool { return k.KeyIdentifier == slc })
	if i < 0 {
		return nil
	}
	return &keys[i]
}

// activate makes the one key active and confirms it with the tenant's list.
func (u *upload) activate(ctx context.Context) error {
	step := u.plan.active
	if step == nil {
		return nil
	}
	if err := u.cloud.tenant.SetActive(ctx, step.key.SLC); err != nil {
		return err
	}
	k, err := u.tenantKey(ctx, step.key.SLC)
	if err != nil {
		return err
	}
	if k == nil || k.Status != tenant.Active {
		return control.RMSActive.Refuse("the tenant does not list %s as active", step.key.ID)
	}
	u.io.Note("%s: active in the tenant", step.key.ID)
	if u.history.Key(step.key.ID).Tenant == ceremony.StatusActive {
		return nil
	}
	return u.recordActive(step.key.ID, u.way)
}
