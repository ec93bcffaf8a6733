// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"

	"keyferry/online/internal/ceremony"
	"keyferry/online/internal/vault"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/sheet"
	"keyferry/pkg/state"
)

// runSheets are for the people of the day, as far as this side knows it.
var runSheets = cli.RunSheets{Side: side, Day: func(s *state.State) (*sheet.Day, error) {
	w, world, err := ceremony.OwnWorld(s)
	if err != nil {
		return nil, err
	}
	j, err := ceremony.ReadJournal(s.Ledger)
	if err != nil {
		return nil, err
	}
	way, err := ceremony.WayInto(s, "")
	if err != nil {
		return nil, err
	}
	stand, err := ceremony.Stand(s, j, nil)
	if err != nil {
		return nil, err
	}
	day := &sheet.Day{
		Online: s.Name, Region: w.Region, Vault: w.Vault, World: w.Number, WorldPrint: fingerprint.Of(world), Tenant: string(way),
		Approvers: w.Approvers, Threshold: w.Threshold, Receipt: uint64(len(j.Receipts)), Stick: j.Stick, Remains: stand.Remains,
	}
	if n := len(j.KEKs); n > 0 {
		day.KEK, day.KEKName = j.KEKs[n-1].Number, vault.NameOf(j.KEKs[n-1].KID)
	}
	card, file, err := ceremony.PinnedCard(s)
	switch {
	case err == nil:
		day.Offline, day.Card = card.Name, fingerprint.Of(file)
	case !control.Is(err, control.TrustNone):
		return nil, err
	}
	if n := len(j.Bundles); n > 0 {
		day.Bundle, day.Manifest, day.Active = j.Bundles[n-1].Sequence, j.Bundles[n-1].Manifest, j.Bundles[n-1].Active
	}
	for _, k := range j.All() {
		day.Keys = append(day.Keys, sheet.DayKey{ID: k.ID, Managed: k.Tenant != "" && k.KeyURL == ""})
		if k.Tenant == ceremony.StatusActive {
			day.Active = cmp.Or(day.Active, k.ID)
		}
	}
	return day, nil
}}
