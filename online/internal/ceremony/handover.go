// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"keyferry/bundle"
	"keyferry/online/internal/tenant"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/filetype"
	"keyferry/pkg/fingerprint"
)

// kit is the tenant's part of the plan, to be handed over, and what the ledger keeps
// of it. A key that is not in the vault yet has a key URL of the right form, so that
// all the rest can be checked before anything is changed.
func (u *upload) kit() (*HandedOver, *tenant.Kit, error) {
	handed := &HandedOver{Manifest: u.manifest(), Cloud: cmp.Or(u.cloud.Azure, "public"), Rehearsal: u.state.Rehearsal}
	if u.active != nil {
		handed.Active = u.active.Key.SLC
	}
	for _, s := range u.steps {
		url := s.url
		if url == "" && !s.Key.MicrosoftManaged() {
			url = u.cloud.Vault.URL() + "/keys/" + s.vaultName + "/0"
		}
		public, err := x509.MarshalPKIXPublicKey(s.Public)
		if err != nil {
			return nil, nil, err
		}
		handed.Keys = append(handed.Keys, HandedKey{s.Key.ID, tpdName(s.Key), s.Key.SLC, fingerprint.Of(public), public, url, s.friendlyName, s.licensing})
	}
	kit, err := handed.kit(u.request.Transfers)
	if err != nil {
		return nil, nil, err
	}
	handed.Kit, handed.Script = kit.ID(), fingerprint.Of(kit.Script())
	_, err = kit.Files("") // it can be written
	return handed, kit, err
}

// kit is the kit again of which the ledger knows, with its TPDs.
func (h *HandedOver) kit(transfers []*Transfer) (*tenant.Kit, error) {
	k := &tenant.Kit{Cloud: h.Cloud, Active: h.Active, Rehearsal: h.Rehearsal}
	for _, key := range h.Keys {
		i := slices.IndexFunc(transfers, func(t *Transfer) bool { return t.Key.ID == key.ID })
		if i < 0 {
			return nil, control.RMSResult.Refuse("the kit held the key %s, which is not here", key.ID).
				WithHint("give the result to `online upload` with the bundle of which the kit was made")
		}
		public, err := bundle.Key{PublicKey: key.Public}.RSA()
		if err != nil {
			return nil, control.StateDamaged.Refuse("the ledger's key %s: %w", key.ID, err)
		}
		k.TPDs = append(k.TPDs, tenant.KitTPD{
			File: key.File, TPD: transfers[i].TPD, KeyIdentifier: key.SLC, MicrosoftManaged: key.KeyURL == "",
			KeyURL: key.KeyURL, FriendlyName: key.FriendlyName, Public: public,
		})
	}
	return k, nil
}

// handOver writes the kit and stops (KF-RMS-BY-HAND), unless all that it would do is
// known to be done.
func (u *upload) handOver() error {
	handed, kit, err := u.kit()
	if err != nil || u.inTenant() {
		return err
	}
	dir := cmp.Or(u.request.Out, u.state.Path("kit-"+handed.Kit[:12]))
	if err := writeKit(dir, kit); err != nil {
		return err
	}
	if last(u.journal.Kits).Kit != handed.Kit {
		if handed.Dir, err = filepath.Abs(dir); err != nil {
			return err
		}
		if handed.Again, err = u.request.Again.words(true); err != nil {
			return err
		}
		if err := u.journal.Record(EventHandedOver, handed); err != nil {
			return err
		}
	}
	for _, step := range u.steps {
		if step.Key.MicrosoftManaged() {
			WarnOfKeyIn(u.io, filepath.Join(dir, tpdName(step.Key)), step.Key.ID)
		}
	}
	u.io.Speak("kit's script, "+tenant.KitScript, handed.Script)
	instructions, err := u.instructions(dir, kit)
	if err != nil {
		return err
	}
	return control.RMSByHand.Refuse("the keys are in the vault; a person must import their TPDs into the tenant, by the hand-over kit in %s", dir).
		WithHint("%s", instructions)
}

// WarnOfKeyIn names a TPD that was written and holds its key.
func WarnOfKeyIn(io *cli.IO, path, id string) {
	io.Warn("%s holds the key %s: whoever has it and the export's password has the key; delete it, and each copy of it, once it is in the tenant [%s]",
		path, id, control.TPDMode1.ID)
}

// inTenant reports whether the tenant is known to hold every key as planned.
func (u *upload) inTenant() bool {
	for _, s := range u.steps {
		known := u.known(s)
		if known == nil || known.Tenant == "" || s == u.active && known.Tenant != StatusActive {
			return false
		}
	}
	return true
}

// writeKit makes the kit's folder whole or not at all. One that is there
// already, by an earlier run, must be this kit.
func writeKit(dir string, kit *tenant.Kit) error {
	files, err := kit.Files(dir)
	if err != nil {
		return err
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return durable.NewDir(dir, 0o700, func(part string) error {
			files, err := kit.Files(part)
			if err != nil {
				return err
			}
			return durable.CreateAll(files, 0o600)
		})
	}
	for _, f := range files {
		there, err := os.ReadFile(f.Path)
		if err != nil || !bytes.Equal(there, f.Data) {
			return control.OutputExists.Refuse("%s exists already and is not this hand-over kit", dir)
		}
	}
	return nil
}

// instructions say what a person does with the kit.
func (u *upload) instructions(dir string, kit *tenant.Kit) (string, error) {
	again, err := u.request.Again.words(false)
	if err != nil {
		return "", err
	}
	steps := []string{
		"take the folder to a disk of a Windows machine with the AIPService module; type or paste there, in Windows PowerShell 5.1 and in that folder, this line, which compares the script with its digest before it runs:",
		kit.Command(),
		"write down the digest that it shows in the end, bring back " + tenant.ResultFile + ", which it writes beside itself, and run here: " + u.io.Line("online", append(again, "--result", tenant.ResultFile)...),
	}
	if slices.ContainsFunc(u.steps, func(s *step) bool { return s.OneTime != nil }) {
		one := "the script asks for each TPD's password, which may be a one-time password"
		if again[0] == "upload" { // the bundle holds them
			one += "; this writes those down: " + u.io.Line("online", "package", again[1], "--out", "transfer")
		}
		steps = append(steps, one)
	}
	if grants := u.grants(); !u.state.Rehearsal && grants != "" {
		steps = append(steps, "before that, unless Azure RMS may use the keys already:", grants)
	}
	return strings.Join(append(steps, "the kit is in "+cli.Quote(dir)), "\n"), nil
}

// TakeResult takes what the kit's script wrote: what the tenant then had, as that
// machine says. The kit may be any that held one of these keys; the result says which.
// The digest is compared with the one that the script showed there: the file itself came
// by media that others may write to.
func TakeResult(io *cli.IO, j *Journal, transfers []*Transfer, result []byte, digest cli.Compared) (*UploadResult, error) {
	before := len(j.ledger.Entries())
	var handed *HandedOver
	var keys []tenant.Key
	var first error
	for _, h := range j.kitsOf(transfers) {
		kit, err := h.kit(transfers)
		if err == nil {
			keys, err = kit.Result(result)
		}
		if err == nil {
			handed = &h
			break
		}
		if first == nil { // of the newest kit, which is the one that is meant
			first = err
		}
	}
	switch {
	case handed == nil && first != nil:
		return nil, filetype.Explain(first, result, filetype.Result)
	case handed == nil:
		return nil, control.RMSResult.Refuse("no hand-over kit was written for these keys").
			WithHint("run the command without --result first")
	}
	digest.Is = tenant.ResultDigest(result)
	if err := io.Compare(digest); err != nil {
		return nil, err
	}
	r := &UploadResult{}
	for _, key := range handed.Keys {
		status := string(keys[slices.IndexFunc(keys, func(k tenant.Key) bool { return k.KeyIdentifier == key.SLC })].Status)
		io.Note("%s: its TPD is in the tenant, %s, as the kit's result says", key.ID, strings.ToLower(status))
		if err := j.recordTenant(TPDImported{key.ID, key.SLC, key.Key, status, ByKit, &digest.Is, key.Licensing}); err != nil {
			return nil, err
		}
		if key.KeyURL == "" {
			io.Warn("%s of the kit holds the key %s: delete the kit, and each copy of it [%s]", key.File, key.ID, control.TPDMode1.ID)
		}
		r.Keys = append(r.Keys, j.Key(key.ID).Arrived)
	}
	r.Changed = len(j.ledger.Entries()) > before
	return r, nil
}

// kitsOf lists the kits that hold one of the keys, newest first.
func (j *Journal) kitsOf(transfers []*Transfer) []HandedOver {
	var with []HandedOver
	for _, h := range slices.Backward(j.Kits) {
		if slices.ContainsFunc(h.Keys, func(k HandedKey) bool {
			return slices.ContainsFunc(transfers, func(t *Transfer) bool { return t.Key.ID == k.ID })
		}) {
			with = append(with, h)
		}
	}
	return with
}

// onItsWay returns the key as the last kit that held it has it, nil if none did.
func (j *Journal) onItsWay(k bundle.Key) *HandedKey {
	for _, h := range slices.Backward(j.Kits) {
		if i := slices.IndexFunc(h.Keys, func(key HandedKey) bool { return key.ID == k.ID && key.SLC == k.SLC }); i >= 0 {
			return &h.Keys[i]
		}
	}
	return nil
}
