// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"keyferry/bundle"
	"keyferry/online/internal/ceremony"
	"keyferry/online/internal/vault"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/filetype"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/keyid"
	"keyferry/pkg/tpd"
)

// plan is what an upload will do.
type plan struct {
	steps    []*step
	active   *step                   // nil: all stay archived
	manifest fingerprint.Fingerprint // of the bundle; zero without one
	accept   *ceremony.Accepted      // to be recorded first; nil if it was, or without a bundle
}

// step is one key's way into the vault and the tenant.
type step struct {
	transfer
	public       *rsa.PublicKey // of the key that travels
	password     []byte         // of the TPD
	friendlyName string
	vaultName    string            // not of a Microsoft-managed key, as are those below
	named        bool              // by the operator
	tags         map[string]string // in the vault: they tell a resumed import from a foreign key
	keyURL       string            // once the key is in the vault
	refusal      error             // the vault's or the tenant's, before anything is changed
}

func (s *step) vaultImport() vault.Import {
	return vault.Import{Name: s.vaultName, Blob: s.blob, Want: s.public, Tags: s.tags}
}

// room is what the ledger and a practice cloud take, in bytes, with some to
// spare.
func (p *plan) room() uint64 {
	bytes := uint64(room)
	for _, s := range p.steps {
		bytes += room + uint64(len(s.blob)+len(s.tpd))
	}
	return bytes
}

func (p *plan) clear() {
	for _, s := range p.steps {
		clear(s.password)
	}
}

// describe lists the steps of the plan.
func (u *upload) describe() []string {
	var lines []string
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	for _, s := range u.plan.steps {
		switch {
		case s.key.MicrosoftManaged():
		case s.keyURL != "":
			add("%s is in the vault already, by this ceremony, as %s", s.key.ID, s.vaultName)
		default:
			add("import %s into the vault as %s", s.key.ID, s.vaultName)
		}
	}
	if grants := u.grants(); !u.state.Rehearsal && grants != "" {
		add("let Azure RMS get, decrypt and sign with the keys, if it may not yet, which cannot be seen from here:\n%s", grants)
	}
	if u.way == ceremony.ByKit {
		add("write the hand-over kit, and stop: a person takes the following steps on a Windows machine and brings the result back")
	}
	for _, s := range u.plan.steps {
		how := "with the key's URL"
		if s.key.MicrosoftManaged() {
			how = "key included, to be Microsoft-managed"
		}
		add("import the TPD of %s (SLC %s) into the tenant as %s, %s", s.key.ID, s.key.SLC, control.Quote(s.friendlyName), how)
	}
	if u.plan.active != nil {
		add("make %s active", u.plan.active.key.ID)
	}
	if u.way == ceremony.ByPowerShell {
		add("sign out of Azure RMS")
	}
	return lines
}

// plan checks all that can be known without the cloud.
func (o *uploadOptions) plan(ctx context.Context, io *cli.IO, r received) (*plan, error) {
	if err := o.check(r.Index.Keys); err != nil {
		return nil, err
	}
	transfers, err := readTransfers(r.Verified)
	if err != nil {
		return nil, err
	}
	passwords, err := o.passwords(ctx, io, transfers)
	if err != nil {
		return nil, err
	}
	p, err := o.steps(r, transfers, passwords)
	if err != nil {
		for _, password := range passwords {
			clear(password)
		}
		return nil, err
	}
	return p, nil
}

// passwords returns a password for each TPD: the one that travelled
// with it, or else one from the operator.
func (o *uploadOptions) passwords(ctx context.Context, io *cli.IO, transfers []transfer) ([][]byte, error) {
	asked := 0
	for _, t := range transfers {
		if t.oneTime == nil {
			asked++
		}
	}
	var given [][]byte
	if asked > 0 || o.password.Given() {
		var err error
		if given, err = o.password.Read(ctx, io, asked); err != nil {
			return nil, err
		}
	}
	var all [][]byte
	for _, t := range transfers {
		if t.oneTime != nil {
			all = append(all, t.oneTime)
			continue
		}
		all, given = append(all, given[0]), given[1:]
	}
	for _, unused := range given {
		clear(unused)
	}
	return all, nil
}

// steps makes a step of each key, and reports the problems of all.
func (o *uploadOptions) steps(r received, transfers []transfer, passwords [][]byte) (*plan, error) {
	p := &plan{manifest: r.Digest}
	if !r.Again {
		p.accept = acceptance(r)
	}
	var problems []error
	for i, t := range transfers {
		s, err := newStep(t, passwords[i])
		if err != nil {
			problems = append(problems, control.About(t.key.ID, err))
			continue
		}
		s.vaultName = o.vaultName(t.key.ID)
		_, s.named = o.names[t.key.ID]
		s.tags = map[string]string{"keyferry-bundle": r.Manifest.ID, "keyferry-slc": t.key.SLC}
		if t.key.ID == o.active {
			p.active = s
		}
		p.steps = append(p.steps, s)
	}
	return p, errors.Join(problems...)
}

// vaultName is the key's name in the vault: its identifier, if no other was
// given.
func (o *uploadOptions) vaultName(id string) string {
	if name, ok := o.names[id]; ok {
		return name
	}
	return id
}

// check refuses key identifiers that the bundle does not hold, names that the
// vault would not take, and a weak key as the active one.
func (o *uploadOptions) check(keys []bundle.Key) error {
	position := func(id string) int { return slices.IndexFunc(keys, func(k bundle.Key) bool { return k.ID == id }) }
	if o.active != "" {
		switch i := position(o.active); {
		case i < 0:
			return control.CommandLine.Refuse("--active: the bundle holds no key %s", control.Quote(o.active))
		case keys[i].MicrosoftManaged() && !o.unsafe1024:
			return control.RMSActive1024.Refuse("the key %s has 1024 bits: as the active key it would protect all new content", o.active)
		}
	}
	for id, name := range o.names {
		if i := position(id); i < 0 || keys[i].MicrosoftManaged() {
			return control.CommandLine.Refuse("--vault-key-name: the bundle holds no key %s for the vault", control.Quote(id))
		}
		if err := keyid.Check("vault key name", name); err != nil {
			return err
		}
	}
	used := map[string]bool{}
	for _, k := range keys {
		if k.MicrosoftManaged() {
			continue
		}
		name := o.vaultName(k.ID)
		if used[name] {
			return control.CommandLine.Refuse("two keys of the bundle would get the name %s in the vault", name)
		}
		used[name] = true
	}
	return nil
}

func acceptance(r received) *ceremony.Accepted {
	a := &ceremony.Accepted{
		Bundle: r.Manifest.ID, Sequence: r.Manifest.Sequence, Manifest: r.Digest, Previous: r.Manifest.Previous, OutOfOrder: r.OutOfOrder, Copy: r.copy, Approved: r.approved, Keys: []string{},
	}
	for _, k := range r.Index.Keys {
		a.Keys = append(a.Keys, k.ID)
	}
	return a
}

// newStep opens the TPD, as the tenant will, and checks that it belongs to the
// key that travels.
func newStep(t transfer, password []byte) (*step, error) {
	public, err := publicKey(t.key)
	if err != nil {
		return nil, err
	}
	checked, err := checkTPD(t, password)
	if err != nil {
		return nil, err
	}
	if !checked.Public().Equal(public) || checked.GUID() != t.key.SLC {
		return nil, control.RMSKeyMismatch.Refuse("the TPD is of the key %s, the bundle's index says %s", checked.GUID(), control.Quote(t.key.SLC))
	}
	return &step{transfer: t, public: public, password: password, friendlyName: checked.Report().SLC.ServerName}, nil
}

func publicKey(k bundle.Key) (*rsa.PublicKey, error) {
	parsed, err := x509.ParsePKIXPublicKey(k.PublicKey)
	if err != nil {
		return nil, control.BundleContents.Refuse("the public key of %s can't be read: %w", k.ID, err)
	}
	public, ok := parsed.(*rsa.PublicKey)
	if !ok {
		return nil, control.BundleContents.Refuse("the public key of %s is not an RSA key", k.ID)
	}
	return public, nil
}

// checkTPD makes every check of the TPD that is to go into the tenant.
func checkTPD(t transfer, password []byte) (tpd.Identity, error) {
	export, err := tpd.Parse(t.tpd)
	if err != nil {
		return tpd.Identity{}, filetype.Explain(err, t.tpd, filetype.Keyless)
	}
	domain, err := export.Decrypt(password)
	if err != nil {
		return tpd.Identity{}, err
	}
	defer domain.Clear()
	if t.key.MicrosoftManaged() {
		checked, err := domain.CheckedMicrosoftManaged(time.Now())
		if err != nil {
			return tpd.Identity{}, err
		}
		return checked.Identity, nil
	}
	checked, err := domain.CheckedKeyless(time.Now())
	if err != nil {
		return tpd.Identity{}, err
	}
	return checked.Identity, nil
}
