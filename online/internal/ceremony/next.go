// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"path/filepath"
	"slices"
	"strings"

	"keyferry/bundle"
	"keyferry/online/internal/tenant"
	"keyferry/online/internal/vault"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/dispatch"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/state"
	"keyferry/pkg/trust"
)

// Stand says where this side stands by its ledger, what comes next, and what is to be
// carried. The bundle that is in hand, if one is, may be unknown to the ledger yet.
func Stand(s *state.State, j *Journal, hand *Received) (*cli.Standing, error) {
	w, _, err := OwnWorld(s)
	if err != nil {
		return nil, err
	}
	card, _, err := PinnedCard(s)
	if err != nil && !control.Is(err, control.TrustNone) {
		return nil, err
	}
	stand := &cli.Standing{Remains: j.remains()}
	next := stand.Next
	stick := j.Stick
	if stick == "" || stick == "." {
		stick = "DIR"
	}
	on := func(name string) string { return filepath.Join(stick, name) }

	// The packages, for the other side.
	switch {
	case len(j.KEKs) == 0:
		next("DIR is where the stick is", "online", "kek", "create", "--out", "DIR")
		return stand, nil
	case j.OldKEKs == len(j.KEKs):
		next("the packages of the former security world are void; so is its pin", "online", "kek", "fetch", "--kek-name", vault.NameOf(last(j.KEKs).KID), "--out", stick)
		return stand, nil
	}
	packages := []string{on(trust.WorldName(w.Region, w.Number)), on(trust.KEKName(w.Region, last(j.KEKs).Number))}
	if card == nil {
		stand.Carry = packages
		cardFile := on(trust.CardName("NAME"))
		if found, err := filepath.Glob(on(trust.CardName("*"))); err == nil && len(found) == 1 {
			cardFile = found[0]
		}
		next("once the other side's card is here", "online", "trust", cardFile)
		next("", "offline", "trust", packages[0])
		return stand, nil
	}

	// The bundle in hand, then those that are under way, in their order.
	if hand != nil && !j.IsAccepted(hand.Digest) {
		stand.Steps = append(stand.Steps, j.upload(*hand.Acceptance(), vaultKeys(hand.Index.Keys)))
	}
	for _, p := range j.Packages {
		packaged := p.Of
		newest := last(j.Packages).Of.Manifest == packaged.Manifest
		if newest && !j.IsAccepted(packaged.Manifest) && hand == nil && packaged.Sequence > j.LastAccepted() {
			var ids []string
			for _, f := range p.Files {
				if f.Ciphertext != (fingerprint.Fingerprint{}) {
					ids = append(ids, f.ID)
				}
			}
			stand.Steps = append(stand.Steps, j.upload(packaged, ids))
		}
	}
	for _, a := range j.Bundles {
		kit := j.waitsFor(func(k HandedKey) bool { return slices.Contains(a.Keys, k.ID) })
		answer := j.LastReceipt(a.Manifest)
		arrived, refused := j.state(a)
		switch {
		case kit != nil && !arrived && !refused:
			stand.Steps = append(stand.Steps, kit.result())
		case !arrived && !refused:
			stand.Steps = append(stand.Steps, j.upload(a, a.Keys))
		case !j.isCurrent(answer):
			note := ""
			if refused {
				note = "a key was refused, and the receipt will say so; `online upload` goes on with the bundle once the cause is mended"
			}
			next(note, "online", "receipt", a.Path, "--out", filepath.Dir(a.Path))
		}
	}
	if kit := j.waitsFor(func(k HandedKey) bool {
		return !slices.ContainsFunc(j.Bundles, func(a Accepted) bool { return slices.Contains(a.Keys, k.ID) })
	}); kit != nil {
		stand.Steps = append(stand.Steps, kit.result())
	}
	if len(stand.Steps) > 0 {
		return stand, nil
	}

	// The other side is next.
	if n := len(j.Receipts); n > 0 {
		receipt := filepath.Join(j.Receipts[n-1].Out, dispatch.FileName(s, j.Receipts[n-1].Sequence))
		stand.Carry = []string{receipt}
		next("it closes the other side's ledger for the bundle", "offline", "receipt", receipt)
	} else {
		stand.Carry = packages
		next("it says where the other side stands", "offline", "next")
	}
	next("once the next bundle is here", "online", "verify", on(bundle.FileName(card.Name, j.LastAccepted()+1)))
	return stand, nil
}

// vaultKeys are the identifiers of the keys that go into the vault.
func vaultKeys(keys []bundle.Key) (ids []string) {
	for _, k := range keys {
		if !k.MicrosoftManaged() {
			ids = append(ids, k.ID)
		}
	}
	return ids
}

// upload is the step that brings a bundle into the vault and the tenant.
func (j *Journal) upload(a Accepted, candidates []string) cli.Step {
	step := cli.Step{Program: "online", Words: []string{"upload", a.Path}}
	if a.Sequence < j.LastAccepted() && !j.IsAccepted(a.Manifest) {
		step.Words = append(step.Words, "--out-of-order")
	}
	active := slices.ContainsFunc(j.Keys, func(k *Key) bool { return k.Tenant == StatusActive })
	switch {
	case a.Active != "":
		step.Words = append(step.Words, "--active", a.Active)
	case active || j.IsAccepted(a.Manifest):
	case len(candidates) == 1:
		step.Words = append(step.Words, "--active", candidates[0])
		step.Note = "without --active the key stays archived, and only opens old content"
	case len(candidates) > 1:
		step.Note = "--active ID makes one of them active, which protects new content: " + strings.Join(candidates, ", ")
	}
	return step
}

// result is the step that takes what the kit's script wrote.
func (h *HandedOver) result() cli.Step {
	return cli.Step{
		Program: "online", Words: append(slices.Clone(h.Again), "--result", filepath.Join(h.Dir, tenant.ResultFile)),
		Note: "first a person runs the kit's " + tenant.KitScript + " on a Windows machine and brings " + tenant.ResultFile + " back; the kit is in " + h.Dir,
	}
}

// waitsFor is the newest kit of which a key is not in the tenant yet, of the keys that
// are asked about; nil if there is none.
func (j *Journal) waitsFor(about func(HandedKey) bool) *HandedOver {
	for _, h := range slices.Backward(j.Kits) {
		for _, k := range h.Keys {
			known := j.find(func(known *Key) bool { return known.Arrived.Key == k.Key })
			if about(k) && (known == nil || known.Tenant == "" || k.SLC == h.Active && known.Tenant != StatusActive && !j.activated(known.ID)) {
				return &h
			}
		}
	}
	return nil
}

// state reports whether each key of a bundle is in the tenant, and whether one was
// refused.
func (j *Journal) state(a Accepted) (arrived, refused bool) {
	arrived = true
	for _, id := range a.Keys {
		known := j.Key(id)
		if packaged, _ := j.Packaged(func(k PackagedKey) bool { return k.ID == id }); known == nil && packaged != nil {
			known = j.find(func(k *Key) bool { return k.Arrived.Key == packaged.Key }) // under another identifier
		}
		if answer := j.LastReceipt(a.Manifest); known == nil && answer != nil {
			if i := slices.IndexFunc(answer.Keys, func(k bundle.Arrived) bool { return k.ID == id }); i >= 0 {
				known = j.find(func(k *Key) bool { return k.Arrived.Key == answer.Keys[i].Key })
			}
		}
		arrived = arrived && known != nil && known.Tenant != ""
		refused = refused || j.Refused[id] != ""
	}
	if known := j.Key(a.Active); known != nil && known.Tenant != StatusActive && !j.activated(a.Active) {
		arrived = false
	}
	return arrived, refused
}

// activated reports whether a key was the active one before.
func (j *Journal) activated(id string) bool { return slices.Contains(j.Activated, id) }

// isCurrent reports whether a receipt still says what became of its keys.
func (j *Journal) isCurrent(a *Answered) bool {
	return a != nil && !slices.ContainsFunc(a.Keys, func(said bundle.Arrived) bool {
		known := j.find(func(k *Key) bool { return k.Arrived.Key == said.Key && said.Key != (fingerprint.Fingerprint{}) })
		if known == nil {
			known = j.Key(said.ID)
		}
		if known == nil {
			return j.Refused[said.ID] != "" && j.Refused[said.ID] != said.Refused
		}
		return known.Tenant != said.Tenant || known.KeyURL != said.KeyURL || j.Refused[said.ID] != said.Refused
	})
}

// remains lists what no command here does, once a TPD is in the tenant.
func (j *Journal) remains() []string {
	var urls []string
	there, active := false, false
	for _, k := range j.Keys {
		there, active = there || k.Tenant != "", active || k.Tenant == StatusActive
		if k.Tenant != "" {
			urls = append(urls, k.Licensing...)
		}
	}
	if !there {
		return nil
	}
	var lines []string
	if !active {
		lines = append(lines, "make a key active: `online upload` with --active ID")
	}
	if weak := j.find(func(k *Key) bool {
		return k.Tenant == StatusActive && slices.Contains(k.Warnings, control.RMSActive1024.ID)
	}); weak != nil {
		lines = append(lines, "rekey once the migration is complete: make a key of 2048 bits the active one, which archives "+weak.ID)
	}
	lines = append(lines,
		"publish the imported templates, which arrive archived: Set-AipServiceTemplateProperty -TemplateId ID -Status Published",
		"activate the service, unless it is: Enable-AipService",
	)
	slices.Sort(urls)
	for _, url := range slices.Compact(urls) {
		lines = append(lines, "redirect clients that know the licensing URL "+url)
	}
	return lines
}
