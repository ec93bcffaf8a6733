// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"keyferry/online/internal/ceremony"
	"keyferry/online/internal/tenant"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/filetype"
	"keyferry/pkg/fingerprint"
)

// tenantFlags are the flags about the way into the tenant.
type tenantFlags struct {
	tenant string // --tenant
	out    string // --out: of the kit
	result string // --result: what its script wrote
}

func (h *tenantFlags) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&h.tenant, "tenant", "", "")
	flags.StringVar(&h.out, "out", "", "")
	flags.StringVar(&h.result, "result", "", "")
}

// kitRecord is what the ledger keeps of the plan's kit. A key that is not in
// the vault yet has a key URL of the right form, so that all the rest can be
// checked before anything is changed.
func (u *upload) kitRecord() (*ceremony.HandedOver, error) {
	h := &ceremony.HandedOver{Manifest: u.plan.manifest, Cloud: cmp.Or(u.cloud.azure, "public"), Rehearsal: u.state.Rehearsal}
	if u.plan.active != nil {
		h.Active = u.plan.active.key.SLC
	}
	for _, s := range u.plan.steps {
		url := s.keyURL
		if url == "" && !s.key.MicrosoftManaged() {
			url = u.cloud.vault.URL() + "/keys/" + s.vaultName + "/0"
		}
		h.Keys = append(h.Keys, ceremony.HandedKey{
			ID: s.key.ID, File: tpdName(s.key), SLC: s.key.SLC, Key: fingerprint.OfKey(s.public), KeyURL: url, FriendlyName: s.friendlyName,
		})
	}
	return h, nil
}

// kitOf is the kit of these keys, with their TPDs by key identifier.
func kitOf(h *ceremony.HandedOver, transfers []transfer) (*tenant.Kit, error) {
	k := &tenant.Kit{Cloud: h.Cloud, Active: h.Active, Rehearsal: h.Rehearsal}
	for _, key := range h.Keys {
		i := slices.IndexFunc(transfers, func(t transfer) bool { return t.key.ID == key.ID })
		if i < 0 {
			return nil, control.RMSResult.Refuse("the kit held the key %s, which is not here", key.ID)
		}
		k.TPDs = append(k.TPDs, tenant.KitTPD{
			File: key.File, TPD: transfers[i].tpd, KeyIdentifier: key.SLC, MicrosoftManaged: key.KeyURL == "",
			KeyURL: key.KeyURL, FriendlyName: key.FriendlyName,
		})
	}
	return k, nil
}

// kit is the plan's part in the tenant, to be handed over.
func (u *upload) kit() (*ceremony.HandedOver, *tenant.Kit, error) {
	handed, err := u.kitRecord()
	if err != nil {
		return nil, nil, err
	}
	var transfers []transfer
	for _, s := range u.plan.steps {
		transfers = append(transfers, s.transfer)
	}
	kit, err := kitOf(handed, transfers)
	if err != nil {
		return nil, nil, err
	}
	handed.Kit = kit.ID()
	_, err = kit.Files("") // it can be written
	return handed, kit, err
}

// handOver writes the kit and stops, unless its result was taken before.
func (u *upload) handOver() error {
	handed, kit, err := u.kit()
	if err != nil {
		return err
	}
	if u.inTenant() {
		return nil
	}
	dir := cmp.Or(u.out, u.state.Path("kit-"+handed.Kit[:12]))
	if err := writeKit(dir, kit); err != nil {
		return err
	}
	if last := u.history.LastKit(handed.Manifest, handed.Keys[0].ID); last == nil || last.Kit != handed.Kit {
		if err := u.history.Record(ceremony.EventHandedOver, handed); err != nil {
			return err
		}
	}
	for _, step := range u.plan.steps {
		if step.key.MicrosoftManaged() {
			warnOfKeyIn(u.io, filepath.Join(dir, tpdName(step.key)), step.key.ID)
		}
	}
	return control.RMSByHand.Refuse("the keys are in the vault; a person must import their TPDs into the tenant, by the hand-over kit in %s", dir).
		WithHint("%s", u.instructions(dir))
}

// inTenant reports whether the tenant is known to hold every key as planned.
func (u *upload) inTenant() bool {
	for _, s := range u.plan.steps {
		known := u.history.Key(s.key.ID)
		if known == nil || known.Tenant == "" || s == u.plan.active && known.Tenant != ceremony.StatusActive {
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
func (u *upload) instructions(dir string) string {
	steps := []string{
		"take the folder to a Windows machine with the AIPService module; there, in Windows PowerShell 5.1: powershell.exe -ExecutionPolicy RemoteSigned -File " + tenant.KitScript,
		"bring back " + tenant.ResultFile + ", which it writes beside itself, and run here: " + u.again + " --result " + tenant.ResultFile,
	}
	if slices.ContainsFunc(u.plan.steps, func(s *step) bool { return s.oneTime != nil }) {
		steps = append(steps, "the script asks for each TPD's password: a one-time password is written by `online package`")
	}
	if grants := u.grants(); !u.state.Rehearsal && grants != "" {
		steps = append(steps, "before that, unless Azure RMS may use the keys already:", grants)
	}
	return strings.Join(append(steps, "the kit is in "+dir), "\n")
}

// takeResult takes back what the kit's script wrote: what the tenant then had,
// as that machine says.
func (u *upload) takeResult(manifest fingerprint.Fingerprint, transfers []transfer, next string) error {
	handed := u.history.LastKit(manifest, transfers[0].key.ID)
	if handed == nil {
		return control.RMSResult.Refuse("no hand-over kit was written for these keys").
			WithHint("run the command without --result first")
	}
	kit, err := kitOf(handed, transfers)
	if err != nil {
		return err
	}
	data, err := cli.ReadInput(u.result)
	if err != nil {
		return err
	}
	keys, err := kit.Result(data)
	if err != nil {
		return filetype.Explain(err, data, filetype.Result)
	}
	var ids []string
	for _, key := range handed.Keys {
		status := string(find(keys, key.SLC).Status)
		u.io.Note("%s: its TPD is in the tenant, %s, as the kit's result says", key.ID, strings.ToLower(status))
		if err := u.recordTenant(ceremony.TPDImported{ID: key.ID, SLC: key.SLC, Key: key.Key, Status: status, By: ceremony.ByKit}); err != nil {
			return err
		}
		if key.KeyURL == "" {
			u.io.Warn("%s of the kit holds the key %s: delete the kit, and each copy of it [%s]", key.File, key.ID, control.TPDMode1.ID)
		}
		ids = append(ids, key.ID)
	}
	return u.reportKeys(ids, next)
}
