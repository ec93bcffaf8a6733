// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"keyferry/offline/internal/ceremony"
	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/sheet"
	"keyferry/pkg/state"
	"keyferry/pkg/trust"
)

// makeSheet makes a page about the two sides, and one of each key that the ledger
// knows.
func makeSheet(s *state.State) (sheet.Sheet, error) {
	h, err := ceremony.ReadJournal(s.Ledger)
	if err != nil {
		return sheet.Sheet{}, err
	}
	facts := sheet.Section{Title: "Ceremony"}
	if w, print, err := ceremony.PinnedWorld(s); err == nil {
		facts.Add("connected side", fmt.Sprintf("%s, region %s, vault %s", w.Name, w.Region, w.Vault))
		facts.AddPrint("security world", print, true)
		rule, _, _ := strings.Cut(w.ApprovalRule(), "\n")
		facts.Add("approval", rule)
		facts.AddSome("", approverLines(w.Approvers))
	} else if !control.Is(err, control.TrustNone) {
		return sheet.Sheet{}, err
	}
	if kek := h.LastKEK(); kek.KID != "" {
		facts.Add("KEK", kek.KID)
		facts.AddPrint("", kek.KEK, true)
	}
	card, file, err := ceremony.OwnCard(s)
	if err != nil {
		return sheet.Sheet{}, err
	}
	facts.AddPrint("offline card", fingerprint.Of(file), true)
	facts.AddPrint("this side signs", card.Signer.Fingerprint(), false)
	record, err := sheet.Ledger(s.Ledger, time.Now())
	if err != nil {
		return sheet.Sheet{}, err
	}
	out := sheet.New(strings.ToUpper(s.Kind()) + ", disconnected side: " + s.Name)
	heading := "The two sides"
	if len(h.Keys) == 0 {
		heading += "; no key was imported"
	}
	out.Pages = []sheet.Page{{Heading: heading, Sections: []sheet.Section{facts, record.InWords()}}}
	for _, k := range h.Keys {
		out.Pages = append(out.Pages, sheet.Page{Heading: "Key " + k.ID, Sections: slices.Concat(sections(h, k), []sheet.Section{record})})
	}
	return out, nil
}

func approverLines(who []trust.Approver) []string {
	var lines []string
	for _, a := range who {
		lines = append(lines, sheet.Approver(a))
	}
	return lines
}

// sections are what the page says of the key itself.
func sections(h *ceremony.Journal, k *ceremony.Key) []sheet.Section {
	key := sheet.Section{Title: "Key"}
	key.Add("SLC", k.SLC)
	key.AddPrint("public key", k.Key, true)
	key.AddPrint("TPD export", k.Record.TPD, false)
	if k.Stage == ceremony.Begun {
		key.Add("import", "begun "+sheet.Minute(k.BegunAt)+", and stopped: the HSM may hold it")
		return []sheet.Section{key}
	}
	return []sheet.Section{key, journey(k, h.Approvals[k.Sealed.Manifest]), checks(k)}
}

func journey(k *ceremony.Key, approved []ceremony.Approval) sheet.Section {
	s := sheet.Section{Title: "Journey"}
	if k.Stored {
		s.Add("wrapped", sheet.Minute(k.StagedAt)+", out of the HSM, where it was before")
	} else {
		s.Add("imported", sheet.Minute(k.StagedAt))
	}
	if k.Managed() {
		s.Add("carried", "inside its TPD, to be Microsoft-managed: it is in no HSM")
	} else {
		s.Add("wrapped by", fmt.Sprintf("%s, %s", k.Record.WrappedBy, k.Record.Mechanism))
		s.Add("for the KEK", k.Record.KEK)
		s.AddPrint("", *k.Record.KEKPrint, false)
		s.AddPrint("ciphertext", k.Record.Wrapped, false)
		s.Add("in the HSM", extractable(k))
	}
	if k.Bundle > 0 {
		s.Add("sealed", fmt.Sprintf("%s, bundle %d", sheet.Minute(k.SealedAt), k.Bundle))
		s.AddPrint("manifest", k.Sealed.Manifest, true)
	}
	var approvals []string
	for _, a := range approved {
		approvals = append(approvals, sheet.Minute(a.At)+" "+sheet.Approver(a.By))
	}
	s.AddSome("approved", approvals)
	addReceipt(k, &s)
	return s
}

// extractable says whether the key can leave the HSM once more.
func extractable(k *ceremony.Key) string {
	switch {
	case k.Record.Retained:
		return "left extractable, as asked"
	case k.Stage == ceremony.Wrapped:
		return "still extractable: the same wrap, run again, ends that"
	}
	return "not extractable"
}

func addReceipt(k *ceremony.Key, s *sheet.Section) {
	a := k.Answer
	if a == nil {
		s.Add("receipt", "none yet")
		return
	}
	s.Add("receipt", fmt.Sprintf("%s; their ledger had %d records, head", sheet.Minute(k.AnsweredAt), k.Theirs.Records))
	s.AddPrint("", k.Theirs.Head, false)
	s.AddBrief("refused", a.Refused)
	s.Add("key URL", a.KeyURL)
	s.Add("HSM platform", a.HSMPlatform)
	tenant := sheet.Tenant(a.Tenant, a.TenantBy)
	if tenant == "" && a.Refused == "" {
		tenant = "nothing is known of it yet"
	}
	s.Add("tenant", tenant)
}

// checks say what let the key through: a control that refuses ends the run before
// the key is in the ledger.
func checks(k *ceremony.Key) sheet.Section {
	s := sheet.Section{Title: "Controls"}
	areas, did := "KF-TRUST, KF-PACKAGE, KF-HSM and KF-TPD", "import"
	if k.Managed() {
		areas = "KF-TRUST, KF-PACKAGE and KF-TPD"
	}
	if k.Stored {
		did = "wrap"
	}
	s.Add("held", "no control of "+areas+" refused the "+did+", but for those that were overruled")
	s.AddBrief("weak, overruled", dash(strings.Join(k.Record.Warnings, ", ")))
	return s
}
