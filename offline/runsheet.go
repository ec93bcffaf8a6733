// SPDX-License-Identifier: Apache-2.0

package main

import (
	"keyferry/offline/internal/ceremony"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/sheet"
	"keyferry/pkg/state"
)

// runSheets are for the people of the day, as far as this side knows it.
var runSheets = cli.RunSheets{Side: side, Day: func(s *state.State) (*sheet.Day, error) {
	j, err := ceremony.ReadJournal(s.Ledger)
	if err != nil {
		return nil, err
	}
	token, err := ceremony.ReadTokenSettings(s)
	if err != nil {
		return nil, err
	}
	_, card, err := ceremony.OwnCard(s)
	if err != nil {
		return nil, err
	}
	last := j.LastBundle()
	day := &sheet.Day{Offline: s.Name, Module: token.Module, Token: token.Label, Card: fingerprint.Of(card), Bundle: last.Sequence, Manifest: last.Manifest}
	if token.Practice {
		day.Module, day.Token = "", ""
	}
	w, print, err := ceremony.PinnedWorld(s)
	switch {
	case err == nil:
		day.Online, day.Region, day.Vault, day.World, day.WorldPrint = w.Name, w.Region, w.Vault, w.Number, print
		day.Approvers, day.Threshold = w.Approvers, w.Threshold
	case !control.Is(err, control.TrustNone):
		return nil, err
	}
	for _, k := range j.Keys {
		day.Keys = append(day.Keys, sheet.DayKey{ID: k.ID, Managed: k.Managed()})
		day.SoftwareWrap = day.SoftwareWrap || k.WrappedBy == ceremony.WrapSoftware && !token.Practice
		if k.Tenant == "Active" {
			day.Active = k.ID
		}
	}
	return day, nil
}}
