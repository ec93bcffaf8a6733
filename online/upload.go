// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"keyferry/bundle"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/rms"
	"keyferry/pkg/state"
)

var uploadCommand = cli.Command{
	Name:    "upload",
	Summary: "import keys into the vault and TPDs into the tenant",
	Usage: `
Usage: online upload BUNDLE [--active ID] [flags]

Checks a bundle as "online verify" does, then imports each key into the vault's
HSM, compares what the vault has with what travelled, imports each keyless TPD
into the tenant with the versioned key URL, and makes one key active. A key of
1024 bits, which no vault takes, goes into the tenant inside its TPD, without a
key URL, to be Microsoft-managed. Stopped at any step, the same command goes on;
nothing is imported twice.

  --active ID                       the key to make active; the others stay
                                    archived, and without it all do
  --unsafe-activate-1024            let --active name a key of 1024 bits
  --protection-password-file PATH   the exports' password: one for all, or one
                                    each, in the bundle's order, for keys whose
                                    TPD brings no one-time password (or
                                    --protection-password-fd N, or
                                    --protection-password to be asked)
  --vault-key-name ID=NAME          the key's name in the vault (default: its
                                    identifier); may be repeated
  --dry-run                         show the plan, check what can be read

Example: online upload keyferry-vault-room-1.kfb --active contoso-slc
           --protection-password-file pw
` + signInHelp,
	Setup: func(flags *pflag.FlagSet) cli.Run {
		var o uploadOptions
		flags.StringVar(&o.active, "active", "", "")
		flags.StringToStringVar(&o.names, "vault-key-name", nil, "")
		flags.BoolVar(&o.unsafe1024, "unsafe-activate-1024", false, "")
		flags.BoolVar(&o.dryRun, "dry-run", false, "")
		o.password = cli.AddSecretFlags(flags, "protection-password", "protection password", true)
		o.signIn = addSignIn(flags)
		return func(ctx context.Context, io *cli.IO, args []string) error {
			path, err := cli.OneArgument(args, "bundle")
			if err != nil {
				return err
			}
			return withState(io, func(s *state.State) error {
				return withBundle(s, path, func(h *history, v *bundle.Verified) error { return o.run(ctx, io, s, h, v) })
			})
		}
	},
}

type uploadOptions struct {
	active     string
	unsafe1024 bool
	names      map[string]string // vault key name by key identifier
	dryRun     bool
	password   *cli.SecretFlags
	signIn     *signIn
}

func (o *uploadOptions) run(ctx context.Context, io *cli.IO, s *state.State, h *history, v *bundle.Verified) error {
	plan, err := o.plan(ctx, io, v)
	if err != nil {
		return err
	}
	u := &upload{io: io, state: s, history: h, plan: plan, signIn: o.signIn}
	if err := u.run(ctx, o.dryRun); err != nil {
		return err
	}
	return u.report(o.dryRun, "Next: online receipt BUNDLE --out DIR")
}

// upload carries a plan out.
type upload struct {
	io      *cli.IO
	state   *state.State
	history *history
	cloud   cloud
	plan    *plan
	signIn  *signIn
}

// run shows the plan, asks the cloud about it, and, unless it is a dry run,
// carries it out.
func (u *upload) run(ctx context.Context, dryRun bool) error {
	defer u.plan.clear()
	if err := durable.CheckRoom(u.state.Dir, u.plan.room()); err != nil {
		return err
	}
	err := withCloud(ctx, u.io, u.state, u.signIn, func(c cloud) error {
		u.cloud = c
		if err := u.foresee(ctx); err != nil || dryRun {
			return err
		}
		if !u.state.Rehearsal {
			if err := u.io.Confirm("Carry this plan out?"); err != nil {
				return err
			}
		}
		return u.carryOut(ctx)
	})
	return err
}

// foresee shows the plan and asks the cloud what of it is done already, or
// would be refused. It changes nothing.
func (u *upload) foresee(ctx context.Context) error {
	for _, line := range u.plan.describe() {
		u.io.Note("plan: %s", line)
	}
	var problems []error
	for _, step := range u.plan.steps {
		if step.key.MicrosoftManaged() {
			u.io.Warn("the key %s has 1024 bits and goes into no vault: this side and Microsoft see it [%s]", step.key.ID, control.TPDMode1.ID)
			continue
		}
		done, err := u.cloud.vault.CheckImport(ctx, step.vaultImport())
		switch {
		case err != nil:
			problems = append(problems, err)
		case done != nil:
			u.io.Note("%s is in the vault already, by this ceremony", step.key.ID)
		}
	}
	return errors.Join(problems...)
}

// carryOut makes the changes, each recorded as soon as it is made.
func (u *upload) carryOut(ctx context.Context) error {
	if a := u.plan.accept; a != nil {
		a.Copy, a.Approved = u.history.copy, u.history.approved
		if err := u.record(eventAccepted, *a); err != nil {
			return err
		}
	}
	for _, step := range u.plan.steps {
		if step.key.MicrosoftManaged() {
			continue
		}
		if err := u.importKey(ctx, step); err != nil {
			return u.refused(step, err)
		}
	}
	if u.cloud.tenant == nil {
		return u.byHand()
	}
	for _, step := range u.plan.steps {
		if err := u.importTPD(ctx, step); err != nil {
			return u.refused(step, err)
		}
	}
	return u.activate(ctx)
}

// refused records why a key did not arrive: the receipt will say so.
func (u *upload) refused(step *step, err error) error {
	r := cli.Refusals(err)[0]
	return errors.Join(err, u.record(eventKeyRefused, keyRefused{step.key.ID, r.Control.ID + ": " + r.Message}))
}

func (u *upload) report(dryRun bool, next string) error {
	if dryRun {
		return u.io.Result(map[string]any{"dry_run": true, "plan": u.plan.describe()}, "Dry run: nothing was changed")
	}
	var keys []bundle.Arrived
	var text strings.Builder
	for _, step := range u.plan.steps {
		k := *u.history.key(step.key.ID)
		keys = append(keys, k)
		where := k.KeyURL
		if step.key.MicrosoftManaged() {
			where = "Microsoft-managed"
		}
		fmt.Fprintf(&text, "%s: %s, same key as travelled, %s in the tenant\n", k.ID, where, strings.ToLower(k.Tenant))
	}
	return u.io.Result(map[string]any{"dry_run": false, "keys": keys}, text.String()+next)
}

// record appends to the ledger and takes it into the history.
func (u *upload) record(event string, data any) error {
	if err := u.state.Ledger.Append(time.Now(), event, data); err != nil {
		return err
	}
	entries := u.state.Ledger.Entries()
	return u.history.take(entries[len(entries)-1])
}

func (u *upload) importKey(ctx context.Context, step *step) error {
	done, err := u.cloud.vault.ImportKey(ctx, step.vaultImport())
	if err != nil {
		return err
	}
	step.keyURL = done.KID
	u.io.Note("%s: in the vault as %s, and it is the key that travelled", step.key.ID, done.KID)
	if known := u.history.key(step.key.ID); known != nil && known.KeyURL == done.KID {
		return nil
	}
	public, err := x509.MarshalPKIXPublicKey(done.Public)
	if err != nil {
		return err
	}
	return u.record(eventKeyImported, keyImported{
		Manifest: u.plan.manifest, ID: step.key.ID, Key: fingerprint.Of(public), KeyURL: done.KID,
		HSMPlatform: done.HSMPlatform, WrappedBy: step.key.WrappedBy,
	})
}

func (u *upload) importTPD(ctx context.Context, step *step) error {
	there, err := u.tenantKey(ctx, step.key.SLC)
	if err != nil {
		return err
	}
	if there == nil {
		made, err := u.cloud.tenant.ImportTPD(ctx, rms.TPDImport{
			TPD: step.tpd, Password: step.password, MicrosoftManaged: step.key.MicrosoftManaged(), KeyURL: step.keyURL, FriendlyName: step.friendlyName,
		})
		if err != nil {
			return err
		}
		there = &made
	}
	if !step.is(there) {
		return control.RMSKeyExists.Refuse("the tenant has the key %s otherwise: it is %s, with the key URL %s", step.key.SLC, there.KeyType, control.Quote(there.KeyURL))
	}
	u.io.Note("%s: its TPD is in the tenant, %s", step.key.ID, strings.ToLower(string(there.Status)))
	if known := u.history.key(step.key.ID); known != nil && known.Tenant == string(there.Status) {
		return nil
	}
	public, err := x509.MarshalPKIXPublicKey(step.public)
	if err != nil {
		return err
	}
	return u.record(eventTPDImported, tpdImported{step.key.ID, step.key.SLC, fingerprint.Of(public), string(there.Status)})
}

// is reports whether a key of the tenant is the one that this step brings, in
// the way that it brings it.
func (s *step) is(there *rms.Key) bool {
	if s.key.MicrosoftManaged() {
		return there.KeyType == rms.MicrosoftManaged && there.KeyURL == "" && there.Holds(s.public)
	}
	return there.KeyType == rms.CustomerManaged && (there.KeyURL == s.keyURL || there.KeyURL == "" && there.Holds(s.public))
}

// tenantKey looks a key up in the tenant's list, nil if it is not there.
func (u *upload) tenantKey(ctx context.Context, slc string) (*rms.Key, error) {
	keys, err := u.cloud.tenant.Keys(ctx)
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		if k.KeyIdentifier == slc {
			return &k, nil
		}
	}
	return nil, nil
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
	if k == nil || k.Status != rms.Active {
		return control.RMSActive.Refuse("the tenant does not list %s as active", step.key.ID)
	}
	u.io.Note("%s: active in the tenant", step.key.ID)
	if u.history.key(step.key.ID).Tenant == statusActive {
		return nil
	}
	return u.record(eventActivated, activated{step.key.ID})
}

// byHand tells what a person has left to do where no tenant can be driven.
func (u *upload) byHand() error {
	var commands []string
	for _, step := range u.plan.steps {
		command := fmt.Sprintf("Import-AipServiceTpd -TpdFile %s -ProtectionPassword (Read-Host -AsSecureString) -FriendlyName '%s'",
			tpdName(step.key), strings.ReplaceAll(step.friendlyName, "'", "''"))
		if step.keyURL != "" {
			command += fmt.Sprintf(" -KeyVaultKeyUrl '%s'", step.keyURL)
		}
		commands = append(commands, command)
	}
	if a := u.plan.active; a != nil {
		commands = append(commands, fmt.Sprintf("Set-AipServiceKeyProperties -KeyIdentifier %s -Active $true", a.key.SLC))
	}
	return control.RMSByHand.Refuse("the keys are in the vault; the TPDs are not in the tenant yet").
		WithHint("write them with `online package`, then in Windows PowerShell 5.1, after Connect-AipService:\n%s", strings.Join(commands, "\n"))
}
