// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"keyferry/bundle"
	"keyferry/pkg/control"
	"keyferry/pkg/sheet"
	"keyferry/pkg/state"
)

// makeSheet makes a page of each key that the ledger knows.
func makeSheet(s *state.State) (sheet.Sheet, error) {
	h, err := readHistory(s.Ledger)
	if err != nil {
		return sheet.Sheet{}, err
	}
	ceremony := sheet.Section{Title: "Ceremony"}
	if w, print, err := pinnedWorld(s); err == nil {
		ceremony.Add("connected side", fmt.Sprintf("%s, region %s, vault %s", w.Name, w.Region, w.Vault))
		ceremony.AddPrint("security world", print, true)
	} else if !control.Is(err, control.TrustNone) {
		return sheet.Sheet{}, err
	}
	self, err := ownKey(s)
	if err != nil {
		return sheet.Sheet{}, err
	}
	ceremony.AddPrint("this side signs", self.Fingerprint(), false)
	record, err := sheet.Ledger(s.Ledger, time.Now())
	if err != nil {
		return sheet.Sheet{}, err
	}
	out := sheet.New(strings.ToUpper(s.Kind()) + ", disconnected side: " + s.Name)
	for _, k := range h.keys {
		out.Pages = append(out.Pages, sheet.Page{Heading: "Key " + k.ID, Sections: slices.Concat([]sheet.Section{ceremony}, k.sections(h), []sheet.Section{record})})
	}
	if len(out.Pages) == 0 {
		out.Pages = []sheet.Page{{Heading: "No key was imported", Sections: []sheet.Section{ceremony, record}}}
	}
	return out, nil
}

// sections are what the page says of the key itself.
func (k *keyState) sections(h *history) []sheet.Section {
	key := sheet.Section{Title: "Key"}
	key.Add("SLC", k.SLC)
	key.AddPrint("public key", k.Key, true)
	key.AddPrint("TPD export", k.paper.record.TPD, false)
	if k.Stage == stageBegun {
		key.Add("import", "begun "+sheet.Minute(k.paper.began)+", and stopped: the HSM may hold it")
		return []sheet.Section{key}
	}
	return []sheet.Section{key, k.journey(h.approvals[k.paper.bundle.Manifest]), k.checks()}
}

// managed reports whether the key stays in its TPD and goes into no HSM.
func (k *keyState) managed() bool { return k.Disposition == bundle.DispositionMicrosoftManaged }

func (k *keyState) journey(approved []approval) sheet.Section {
	s, p := sheet.Section{Title: "Journey"}, k.paper
	if p.stored {
		s.Add("wrapped", sheet.Minute(p.at)+", out of the HSM, where it was before")
	} else {
		s.Add("imported", sheet.Minute(p.at))
	}
	if k.managed() {
		s.Add("carried", "inside its TPD, to be Microsoft-managed: it is in no HSM")
	} else {
		s.Add("wrapped by", fmt.Sprintf("%s, %s", p.record.WrappedBy, p.record.Mechanism))
		s.Add("for the KEK", p.record.KEK)
		s.AddPrint("ciphertext", p.record.Wrapped, false)
		s.Add("in the HSM", k.extractable())
	}
	if k.Bundle > 0 {
		s.Add("sealed", fmt.Sprintf("%s, bundle %d", sheet.Minute(p.sealedAt), k.Bundle))
		s.AddPrint("manifest", p.bundle.Manifest, true)
	}
	var approvals []string
	for _, a := range approved {
		approvals = append(approvals, sheet.Minute(a.at)+" "+sheet.Approver(a.by))
	}
	s.AddSome("approved", approvals)
	k.addReceipt(&s)
	return s
}

// extractable says whether the key can leave the HSM once more.
func (k *keyState) extractable() string {
	switch {
	case k.paper.record.Retained:
		return "left extractable, as asked"
	case k.Stage == stageWrapped:
		return "still extractable: the same wrap, run again, ends that"
	}
	return "not extractable"
}

func (k *keyState) addReceipt(s *sheet.Section) {
	a := k.paper.arrived
	if a == nil {
		s.Add("receipt", "none yet")
		return
	}
	s.Add("receipt", fmt.Sprintf("%s; their ledger had %d records, head", sheet.Minute(k.paper.arrivedAt), k.paper.theirs.Records))
	s.AddPrint("", k.paper.theirs.Head, false)
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
func (k *keyState) checks() sheet.Section {
	s := sheet.Section{Title: "Controls"}
	areas, did := "KF-TRUST, KF-PACKAGE, KF-HSM and KF-TPD", "import"
	if k.managed() {
		areas = "KF-TRUST, KF-PACKAGE and KF-TPD"
	}
	if k.paper.stored {
		did = "wrap"
	}
	s.Add("held", "no control of "+areas+" refused the "+did+", but for those that were overruled")
	s.AddBrief("weak, overruled", dash(strings.Join(k.paper.record.Warnings, ", ")))
	return s
}
