// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"time"

	"keyferry/bundle"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/sheet"
	"keyferry/pkg/state"
	"keyferry/pkg/trust"
)

// transcript shows the ledger.
var transcript = cli.Transcript{Program: "online", InState: withState, Sheet: makeSheet}

// makeSheet makes a page of each key that the ledger knows.
func makeSheet(s *state.State) (sheet.Sheet, error) {
	w, file, err := ownWorld(s)
	if err != nil {
		return sheet.Sheet{}, err
	}
	h, err := readHistory(s.Ledger)
	if err != nil {
		return sheet.Sheet{}, err
	}
	ceremony := sheet.Section{Title: "Ceremony"}
	ceremony.Add("vault", w.Vault+", region "+w.Region)
	ceremony.AddPrint("security world", trust.Fingerprint(file), true)
	if card, err := pinnedCard(s); err == nil {
		ceremony.Add("offline side", card.Name)
		ceremony.AddPrint("it signs", card.Signer.Fingerprint(), true)
	} else if !control.Is(err, control.TrustNone) {
		return sheet.Sheet{}, err
	}
	ceremony.Add("approval", strings.Split(w.ApprovalRule(), "\n")...)
	record, err := sheet.Ledger(s.Ledger, time.Now())
	if err != nil {
		return sheet.Sheet{}, err
	}
	out := sheet.New(strings.ToUpper(s.Kind()) + ", connected side: " + s.Name)
	for _, k := range h.keys {
		out.Pages = append(out.Pages, sheet.Page{Heading: "Key " + k.ID, Sections: []sheet.Section{ceremony, h.arrival(k), record}})
	}
	if len(out.Pages) == 0 {
		out.Pages = []sheet.Page{{Heading: "No key is in the vault", Sections: []sheet.Section{ceremony, record}}}
	}
	return out, nil
}

// arrival is what became of a key.
func (h *history) arrival(k *bundle.Arrived) sheet.Section {
	section := sheet.Section{Title: "Key"}
	for _, a := range h.accepted {
		for _, id := range a.Keys {
			if id == k.ID {
				section.Add("bundle", fmt.Sprintf("%d, id %s, receipt %s", a.Sequence, a.Bundle, receiptNumber(h.lastAnswer(a.Manifest))))
				section.AddPrint("manifest", a.Manifest, true)
				for _, approver := range a.Approved {
					section.Add("approved by", approver.String())
				}
			}
		}
	}
	section.AddPrint("public key", k.Key, true)
	section.Add("key URL", k.KeyURL)
	section.Add("HSM platform", k.HSMPlatform)
	section.Add("wrapped by", k.WrappedBy)
	section.Add("tenant", k.Tenant)
	section.Add("refused", h.refused[k.ID])
	return section
}
