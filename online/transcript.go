// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"keyferry/bundle"
	"keyferry/online/internal/ceremony"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/sheet"
	"keyferry/pkg/state"
	"keyferry/pkg/trust"
)

// transcript shows the ledger.
var transcript = cli.Transcript{Side: side, Sheet: makeSheet}

// makeSheet makes a page about the two sides, and one of each key that the ledger
// knows.
func makeSheet(s *state.State) (sheet.Sheet, error) {
	w, file, err := ceremony.OwnWorld(s)
	if err != nil {
		return sheet.Sheet{}, err
	}
	h, err := ceremony.ReadJournal(s.Ledger)
	if err != nil {
		return sheet.Sheet{}, err
	}
	facts := sheet.Section{Title: "Ceremony"}
	facts.Add("vault", w.Vault+", region "+w.Region)
	facts.AddPrint("security world", fingerprint.Of(file), true)
	if card, file, err := ceremony.PinnedCard(s); err == nil {
		facts.Add("offline side", card.Name)
		facts.AddPrint("offline card", fingerprint.Of(file), true)
		facts.AddPrint("it signs", card.Signer.Fingerprint(), false)
	} else if !control.Is(err, control.TrustNone) {
		return sheet.Sheet{}, err
	}
	if n := len(h.KEKs); n > 0 {
		facts.Add("KEK", h.KEKs[n-1].KID)
		facts.AddPrint("", h.KEKs[n-1].KEK, true)
	}
	rule, _, _ := strings.Cut(w.ApprovalRule(), "\n")
	facts.Add("approval", rule)
	facts.AddSome("", approvers(w.Approvers))
	record, err := sheet.Ledger(s.Ledger, time.Now())
	if err != nil {
		return sheet.Sheet{}, err
	}
	out := sheet.New(strings.ToUpper(s.Kind()) + ", connected side: " + s.Name)
	heading := "The two sides"
	if len(h.All()) == 0 {
		heading += "; no key is in the vault"
	}
	stand, err := ceremony.Stand(s, h, nil)
	if err != nil {
		return sheet.Sheet{}, err
	}
	facts.AddSome("remains", stand.Remains)
	out.Pages = []sheet.Page{{Heading: heading, Sections: []sheet.Section{facts, record.InWords()}}}
	for _, k := range h.All() {
		out.Pages = append(out.Pages, sheet.Page{Heading: "Key " + k.ID, Sections: []sheet.Section{arrival(h, k), record}})
	}
	return out, nil
}

func approvers(who []trust.Approver) []string {
	var lines []string
	for _, a := range who {
		lines = append(lines, sheet.Approver(a))
	}
	return lines
}

// arrival is what became of a key, and of the newest bundle that held it.
func arrival(h *ceremony.Journal, k bundle.Arrived) sheet.Section {
	section := sheet.Section{Title: "Key"}
	var held []ceremony.Accepted
	for _, a := range h.Bundles {
		if slices.Contains(a.Keys, k.ID) {
			held = append(held, a)
		}
	}
	if n := len(held); n > 0 {
		a := held[n-1]
		section.Add("bundle", fmt.Sprintf("%d, id %s, receipt %s", a.Sequence, a.Bundle, receiptNumber(h.LastReceipt(a.Manifest))))
		if n > 1 {
			section.Add("", fmt.Sprintf("and %d before it, which held it too: see the transcript", n-1))
		}
		section.AddPrint("manifest", a.Manifest, true)
		section.AddSome("approved by", approvers(a.Approved))
		k.Warnings = warnings(h, a.Manifest, k)
	}
	if k.Key == (fingerprint.Fingerprint{}) {
		section.Add("arrived", "neither in the vault nor in the tenant")
	}
	section.AddPrint("public key", k.Key, true)
	if k.Tenant != "" && k.KeyURL == "" {
		section.Add("carried", "inside its TPD, to be Microsoft-managed: it is in no HSM")
	}
	section.Add("key URL", k.KeyURL)
	section.Add("HSM platform", k.HSMPlatform)
	section.Add("wrapped by", k.WrappedBy)
	if k.KEK != nil {
		section.AddPrint("for the KEK", *k.KEK, false)
	}
	section.Add("tenant", sheet.Tenant(k.Tenant, k.TenantBy))
	section.AddBrief("refused", k.Refused)
	section.AddBrief("overruled", strings.Join(k.Warnings, ", "))
	return section
}

// warnings are those of the key in the newest receipt for the bundle, which has
// what the disconnected side recorded, or else what is known here alone.
func warnings(h *ceremony.Journal, manifest fingerprint.Fingerprint, k bundle.Arrived) []string {
	last := h.LastReceipt(manifest)
	if last == nil {
		return k.Warnings
	}
	i := slices.IndexFunc(last.Keys, func(a bundle.Arrived) bool { return a.ID == k.ID })
	if i < 0 {
		return k.Warnings
	}
	all := slices.Concat(k.Warnings, last.Keys[i].Warnings)
	slices.Sort(all)
	return slices.Compact(all)
}
