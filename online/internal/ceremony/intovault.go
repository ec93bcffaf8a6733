// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"context"
	"errors"
	"strings"

	"keyferry/online/internal/tenant"
	"keyferry/online/internal/vault"
	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
)

// This file is the part of an upload that has to do with the vault.

// askVault asks the vault about the keys that go into it.
func (u *upload) askVault(ctx context.Context) error {
	var problems []error
	for i, step := range u.steps {
		u.io.Progress("asking the vault", i, len(u.steps))
		if step.Key.MicrosoftManaged() {
			continue
		}
		done, err := u.lookInVault(ctx, step)
		if err != nil {
			step.refusal = u.sortOut(step, err)
			problems = append(problems, step.refusal)
		} else if done != nil {
			step.url = done.KID
		}
	}
	u.io.Progress("", len(u.steps), len(u.steps))
	return errors.Join(problems...)
}

// lookInVault asks for the key under the name that it was imported by before, then
// under the one that it is to get: a key is not imported twice.
func (u *upload) lookInVault(ctx context.Context, step *step) (*vault.Imported, error) {
	before := ""
	if known := u.known(step); known != nil {
		before = vault.NameOf(known.KeyURL)
	}
	if before == "" || before == step.vaultName {
		return u.cloud.Vault.CheckImport(ctx, u.vaultImport(step))
	}
	in := u.vaultImport(step)
	in.Name = before
	done, err := u.cloud.Vault.CheckImport(ctx, in)
	switch {
	case control.Is(err, control.VaultKeyExists), control.Is(err, control.VaultKeyDeleted), err == nil && done == nil:
		return u.cloud.Vault.CheckImport(ctx, u.vaultImport(step)) // it is there no more, or another key: so a new name is what helps
	case err != nil:
		return nil, err
	case step.named:
		return nil, control.VaultKeyExists.Refuse("the key %s is in the vault already, by this ceremony, under the name %s", step.Key.ID, before).
			WithHint("leave out --vault-key-name: the upload goes on under the name that the key has")
	}
	step.vaultName = before
	return done, nil
}

// known is what the ledger knows of the step's key: by its identifier, or by the
// ciphertext, which may have come in under another one.
func (u *upload) known(step *step) *Key {
	if k := u.journal.Key(step.Key.ID); k != nil {
		return k
	}
	if step.Key.MicrosoftManaged() {
		return nil
	}
	return u.journal.Made(step.Ciphertext)
}

// vaultImport is the key on its way into the vault. The tag tells an import that is
// taken up again from a foreign key, by whatever command it came.
func (u *upload) vaultImport(step *step) vault.Import {
	in := vault.Import{Name: step.vaultName, Blob: step.BYOK, Want: step.Public, Tags: map[string]string{"keyferry-ciphertext": step.Ciphertext.Hex()}, Expires: u.request.KeyExpires, More: u.request.KeyTags}
	if step.Key.KEK != nil {
		in.KEK = *step.Key.KEK
	}
	if known := u.known(step); known != nil {
		in.KID = known.KeyURL
	}
	return in
}

// sortOut turns the vault's refusal of files that came without a bundle into what it
// means there: no hint may lead to the import of a pair that is none.
func (u *upload) sortOut(step *step, err error) error {
	r := new(control.Refusal)
	if step.Foreign == nil || step.Foreign.Key != (fingerprint.Fingerprint{}) || !control.Is(err, control.VaultKeyExists) || !errors.As(err, &r) {
		return err
	}
	return r.WithHint("first make sure that %s and %s are of one key, which nothing here can tell: only then does another name help, with --vault-key-name",
		control.Plain(step.Foreign.BYOKFile), control.Plain(step.Foreign.TPDFile))
}

// grants are the commands that let Azure RMS use the keys of the plan.
func (u *upload) grants() string {
	var commands []string
	seen := map[string]bool{}
	for _, step := range u.steps {
		if step.Key.MicrosoftManaged() {
			continue
		}
		for _, c := range u.cloud.Vault.GrantCommands(tenant.ServicePrincipal, step.vaultName) {
			if !seen[c] {
				commands, seen[c] = append(commands, c), true
			}
		}
	}
	return strings.Join(commands, "\n")
}

// withGrants gives the exact command where the service can't use a key.
func (u *upload) withGrants(err error) error {
	if refusal := new(control.Refusal); !u.state.Rehearsal && errors.As(err, &refusal) && refusal.Control.ID == control.RMSKeyURL.ID {
		return refusal.WithHint("let Azure RMS get, decrypt and sign with the keys, then run the same command again:\n%s", u.grants())
	}
	return err
}

// importKey imports a key into the vault and records which one the vault has.
func (u *upload) importKey(ctx context.Context, step *step) error {
	done, err := u.cloud.Vault.ImportKey(ctx, u.vaultImport(step))
	if control.Is(err, control.VaultKeyMismatch) && step.Foreign != nil {
		return u.stray(ctx, step, err)
	}
	if err != nil {
		return u.sortOut(step, err)
	}
	step.url = done.KID
	u.io.Note("%s: in the vault as %s, and it is the key that travelled", step.Key.ID, done.KID)
	known := u.journal.Key(step.Key.ID)
	told := u.cloud.Tenant != nil || u.journal.Refused[step.Key.ID] == "" // else this is what ends a refusal
	if known != nil && known.KeyURL == done.KID && known.WrappedBy == step.Key.WrappedBy && told {
		return nil
	}
	return u.journal.Record(EventKeyImported, KeyImported{
		Manifest: u.manifest(), ID: step.Key.ID, Key: fingerprint.OfKey(done.Public), Ciphertext: step.Ciphertext, KeyURL: done.KID,
		HSMPlatform: done.HSMPlatform, KEK: step.Key.KEK, WrappedBy: step.Key.WrappedBy,
	})
}

// stray says that the vault made another key of the .byok than the TPD has, which
// only the vault could find out, and how that key is removed.
func (u *upload) stray(ctx context.Context, step *step, found error) error {
	made, err := u.cloud.Vault.Key(ctx, step.vaultName)
	if err != nil {
		return errors.Join(found, err)
	}
	err = u.journal.Record(EventKeyStray, KeyStray{Ciphertext: step.Ciphertext, Key: fingerprint.OfKey(made.Public), KeyURL: made.KID})
	refusal := control.RMSKeyMismatch.Refuse("these two files are not of one key: the vault made of %s another key than the one of %s. That key is in the vault now, as %s; nothing went into the tenant",
		control.Plain(step.Foreign.BYOKFile), control.Plain(step.Foreign.TPDFile), made.KID).
		WithHint("give the TPD that belongs to %s, which goes on with that key; or remove the key: %s", control.Plain(step.Foreign.BYOKFile), strings.Join(u.cloud.Vault.RemoveCommands(step.vaultName), "; "))
	return errors.Join(refusal, err)
}
