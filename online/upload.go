// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"keyferry/bundle"
	"keyferry/online/internal/ceremony"
	"keyferry/online/internal/vault"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/fingerprint"
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

The tenant takes TPDs from Windows PowerShell alone. Where it cannot be driven
from here, a folder with the TPDs and one script is written, the hand-over kit,
and the command ends with exit code 4: a person runs the script on a Windows
machine, and brings back what it wrote, for --result.

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
  --tenant WAY                      how TPDs get into the tenant, powershell or
                                    kit (default: as chosen at init)
  --out DIR                         where to write the hand-over kit, a new
                                    folder (default: in the state directory)
  --result FILE                     keyferry-result.json, which the kit's script
                                    wrote on the Windows machine: ends what was
                                    handed over, without a password or a sign-in
  --out-of-order                    take a bundle that is older than one that was
                                    taken, if its own number never was; recorded
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
		o.addFlags(flags)
		o.password = cli.AddSecretFlags(flags, "protection-password", "protection password", true)
		o.signIn = addSignIn(flags)
		outOfOrder := addOutOfOrder(flags)
		return func(ctx context.Context, io *cli.IO, args []string) error {
			if err := o.password.CheckPaths(args); err != nil {
				return err
			}
			path, err := cli.OneArgument(args, "bundle")
			if err != nil {
				return err
			}
			return withState(io, func(s *state.State) error {
				return withBundle(io, s, path, *outOfOrder, func(h *ceremony.Journal, r received) error { return o.run(ctx, io, s, h, r, path) })
			})
		}
	},
}

type uploadOptions struct {
	active     string
	unsafe1024 bool
	names      map[string]string // vault key name by key identifier
	dryRun     bool
	tenantFlags
	password *cli.SecretFlags
	signIn   *signIn
}

func (o *uploadOptions) run(ctx context.Context, io *cli.IO, s *state.State, h *ceremony.Journal, r received, path string) error {
	u := &upload{io: io, state: s, history: h, signIn: o.signIn, tenantFlags: o.tenantFlags, again: "online upload " + path}
	if o.result != "" && o.dryRun {
		return control.CommandLine.Refuse("--dry-run does not go with --result, which only takes down what was done")
	}
	if o.result != "" {
		transfers, err := readTransfers(r.Verified)
		if err != nil {
			return err
		}
		return u.takeResult(r.Digest, transfers, nextReceipt)
	}
	var err error
	if u.plan, err = o.plan(ctx, io, r); err != nil {
		return err
	}
	if err := u.run(ctx, o.dryRun); err != nil {
		return err
	}
	return u.report(o.dryRun, nextReceipt)
}

const nextReceipt = "Next: online receipt BUNDLE --out DIR"

// upload carries a plan out.
type upload struct {
	io      *cli.IO
	state   *state.State
	history *ceremony.Journal
	cloud   cloud
	plan    *plan
	signIn  *signIn
	tenantFlags
	way   way    // into the tenant
	again string // the command, as --result follows it
}

// run shows the plan, asks the cloud about it, and, unless it is a dry run,
// carries it out.
func (u *upload) run(ctx context.Context, dryRun bool) (err error) {
	defer u.plan.clear()
	if u.way, err = wayInto(u.state, u.tenant); err != nil {
		return err
	}
	if err := durable.CheckRoom(u.state.Dir, u.plan.room()); err != nil {
		return err
	}
	return withCloud(ctx, u.io, u.state, u.signIn, func(c cloud) error {
		return withTenant(ctx, u.io, u.way, c, func(c cloud) error {
			u.cloud = c
			return u.work(ctx, dryRun)
		})
	})
}

// work is run with the cloud at hand.
func (u *upload) work(ctx context.Context, dryRun bool) error {
	err := u.foresee(ctx)
	switch {
	case dryRun:
		return err
	case err != nil:
		return errors.Join(err, u.recordForeseen())
	}
	if !u.state.Rehearsal {
		if err := u.io.Confirm("Carry this plan out?"); err != nil {
			return err
		}
	}
	return u.carryOut(ctx)
}

// foresee asks the cloud what of the plan is done already, or would be refused,
// and shows the plan. It changes nothing.
func (u *upload) foresee(ctx context.Context) error {
	problems := u.foreseeVault(ctx)
	for _, line := range u.describe() {
		u.io.Note("plan: %s", line)
	}
	for _, step := range u.plan.steps {
		if !step.key.MicrosoftManaged() {
			continue
		}
		u.io.Warn("the key %s has 1024 bits and goes into no vault: this side and Microsoft see it [%s]", step.key.ID, control.TPDMode1.ID)
		if step == u.plan.active {
			u.io.Warn("the key %s has 1024 bits and, as the active key, will protect all new content; this is recorded [%s]", step.key.ID, control.RMSActive1024.ID)
		}
	}
	if u.cloud.tenant == nil {
		_, _, err := u.kit()
		return errors.Join(problems, err)
	}
	return errors.Join(problems, u.foreseeTenant(ctx))
}

// foreseeVault asks the vault about the keys that go into it.
func (u *upload) foreseeVault(ctx context.Context) error {
	var problems []error
	for _, step := range u.plan.steps {
		if step.key.MicrosoftManaged() {
			continue
		}
		done, err := u.checkImport(ctx, step)
		switch {
		case err != nil:
			step.refusal = err
			problems = append(problems, err)
		case done != nil:
			step.keyURL = done.KID
		}
	}
	return errors.Join(problems...)
}

// checkImport asks the vault for the key under the name that it was imported by
// before, then under the one that it is to get: a key is not imported twice.
func (u *upload) checkImport(ctx context.Context, step *step) (*vault.Imported, error) {
	before := ""
	if known := u.history.Key(step.key.ID); known != nil {
		before = vault.NameOf(known.KeyURL)
	}
	if before == "" || before == step.vaultName {
		return u.cloud.vault.CheckImport(ctx, step.vaultImport())
	}
	in := step.vaultImport()
	in.Name = before
	done, err := u.cloud.vault.CheckImport(ctx, in)
	switch {
	case control.Is(err, control.VaultKeyExists), control.Is(err, control.VaultKeyDeleted), err == nil && done == nil:
		return u.cloud.vault.CheckImport(ctx, step.vaultImport()) // it is there no more, or another key: so a new name is what helps
	case err != nil:
		return nil, err
	case step.named:
		return nil, control.VaultKeyExists.Refuse("the key %s is in the vault already, by this ceremony, under the name %s", step.key.ID, before).
			WithHint("leave out --vault-key-name: the upload goes on under the name that the key has")
	}
	step.vaultName = before
	return done, nil
}

// carryOut makes the changes, each recorded as soon as it is made.
func (u *upload) carryOut(ctx context.Context) error {
	if err := u.accept(); err != nil {
		return err
	}
	for i, step := range u.plan.steps {
		if step.key.MicrosoftManaged() {
			continue
		}
		u.io.Progress("importing keys into the vault", i, len(u.plan.steps))
		if err := u.importKey(ctx, step); err != nil {
			return u.refused(step, err)
		}
	}
	u.io.Progress("", len(u.plan.steps), len(u.plan.steps))
	if u.cloud.tenant == nil {
		return u.handOver()
	}
	for i, step := range u.plan.steps {
		u.io.Progress("importing TPDs into the tenant", i, len(u.plan.steps))
		if err := u.importTPD(ctx, step); err != nil {
			return u.refused(step, u.withGrant(err))
		}
	}
	u.io.Progress("", len(u.plan.steps), len(u.plan.steps))
	return u.activate(ctx)
}

// accept records that the upload of the bundle began, once.
func (u *upload) accept() error {
	a := u.plan.accept
	if a == nil {
		return nil
	}
	u.plan.accept = nil
	return u.history.Record(ceremony.EventAccepted, *a)
}

// recordForeseen records which keys of a bundle were refused before anything was
// changed, so that a receipt can say so. What only stopped the run, no rights or no
// network, is no answer to the other side: the same command goes on. Nor is a
// later run about a key that has arrived, or a bundle with others before it that
// could not be uploaded any more once it was ceremony.Answered.
func (u *upload) recordForeseen() error {
	a := u.plan.accept
	if u.plan.manifest == (fingerprint.Fingerprint{}) || a != nil && a.Sequence > u.history.LastAccepted()+1 {
		return nil
	}
	again := a == nil
	for _, step := range u.plan.steps {
		arrived := again && u.history.Key(step.key.ID) != nil
		if step.refusal == nil || arrived || cli.Refusals(step.refusal)[0].Control.Class != control.Refused {
			continue
		}
		if err := u.accept(); err != nil {
			return err
		}
		if err := u.recordRefusal(step, step.refusal); err != nil {
			return err
		}
	}
	return nil
}

func (u *upload) refused(step *step, err error) error {
	return errors.Join(err, u.recordRefusal(step, err))
}

// recordRefusal records why a key did not arrive: the receipt will say so.
func (u *upload) recordRefusal(step *step, err error) error {
	r := cli.Refusals(err)[0]
	reason := r.Control.ID + ": " + control.Plain(r.Message)
	if u.history.Refused[step.key.ID] == reason {
		return nil
	}
	return u.history.Record(ceremony.EventKeyRefused, ceremony.KeyRefused{ID: step.key.ID, Reason: reason})
}

func (u *upload) report(dryRun bool, next string) error {
	if dryRun {
		return u.io.Result(map[string]any{"dry_run": true, "plan": u.describe()}, "Dry run: nothing was changed")
	}
	var ids []string
	for _, step := range u.plan.steps {
		ids = append(ids, step.key.ID)
	}
	return u.reportKeys(ids, next)
}

// reportKeys says what became of keys, as the ledger has it.
func (u *upload) reportKeys(ids []string, next string) error {
	var keys []bundle.Arrived
	var text strings.Builder
	for _, id := range ids {
		k := *u.history.Key(id)
		keys = append(keys, k)
		fmt.Fprintf(&text, "%s: %s, same key as travelled, %s in the tenant\n", k.ID, cmp.Or(k.KeyURL, "Microsoft-managed"), strings.ToLower(k.Tenant))
	}
	return u.io.Result(map[string]any{"dry_run": false, "keys": keys}, text.String()+next)
}

func (u *upload) importKey(ctx context.Context, step *step) error {
	done, err := u.cloud.vault.ImportKey(ctx, step.vaultImport())
	if err != nil {
		return err
	}
	step.keyURL = done.KID
	u.io.Note("%s: in the vault as %s, and it is the key that travelled", step.key.ID, done.KID)
	told := u.cloud.tenant != nil || u.history.Refused[step.key.ID] == "" // else this is what ends a refusal
	if known := u.history.Key(step.key.ID); known != nil && known.KeyURL == done.KID && told {
		return nil
	}
	return u.history.Record(ceremony.EventKeyImported, ceremony.KeyImported{
		Manifest: u.plan.manifest, ID: step.key.ID, Key: fingerprint.OfKey(done.Public), KeyURL: done.KID,
		HSMPlatform: done.HSMPlatform, WrappedBy: step.key.WrappedBy,
	})
}
