// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"keyferry/bundle"
	"keyferry/pkg/control"
	"keyferry/pkg/ledger"
	"keyferry/pkg/sheet"
	"keyferry/pkg/state"
)

// paper is what the ledger says of one key, for its page.
type paper struct {
	imported  imported
	at        time.Time // of the import
	bundle    sealed
	sealedAt  time.Time
	approvals []string
	arrived   *bundle.Arrived
	arrivedAt time.Time
	theirs    ledger.Mark // the connected side's ledger, when it sealed the receipt
}

// papers are the keys that were imported.
type papers []*paper

// makeSheet makes a page of each key that the ledger knows.
func makeSheet(s *state.State) (sheet.Sheet, error) {
	var p papers
	if err := s.Ledger.Each(p.take); err != nil {
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
	for _, k := range p {
		out.Pages = append(out.Pages, sheet.Page{Heading: "Key " + k.imported.ID, Sections: append(append([]sheet.Section{ceremony}, k.sections()...), record)})
	}
	if len(out.Pages) == 0 {
		out.Pages = []sheet.Page{{Heading: "No key was imported", Sections: []sheet.Section{ceremony, record}}}
	}
	return out, nil
}

func (p *papers) take(e ledger.Entry) error {
	switch e.Event {
	case eventImported:
		k := &paper{at: e.Time}
		*p = append(*p, k)
		return e.Read(&k.imported)
	case eventSealed:
		var d sealed
		if err := e.Read(&d); err != nil {
			return err
		}
		for _, k := range *p {
			if slices.Contains(d.Keys, k.imported.ID) {
				k.bundle, k.sealedAt = d, e.Time
			}
		}
	case eventApproved:
		var d approved
		if err := e.Read(&d); err != nil {
			return err
		}
		for _, k := range *p {
			if k.bundle.Manifest == d.Manifest {
				k.approvals = append(k.approvals, sheet.Minute(e.Time)+" "+d.Approver.String())
			}
		}
	case eventReceipt:
		return p.takeReceipt(e)
	}
	return nil
}

func (p *papers) takeReceipt(e ledger.Entry) error {
	var d received
	if err := e.Read(&d); err != nil {
		return err
	}
	for _, k := range *p {
		for i := range d.Keys {
			if d.Keys[i].ID == k.imported.ID && d.Answers == k.bundle.Manifest {
				k.arrived, k.arrivedAt, k.theirs = &d.Keys[i], e.Time, d.Ledger
			}
		}
	}
	return nil
}

func (k *paper) sections() []sheet.Section {
	key, journey, checks := sheet.Section{Title: "Key"}, sheet.Section{Title: "Journey"}, sheet.Section{Title: "Controls"}
	key.Add("SLC", k.imported.SLC)
	key.AddPrint("public key", k.imported.Key, true)
	key.AddPrint("TPD export", k.imported.TPD, false)
	journey.Add("imported", sheet.Minute(k.at))
	if k.imported.Disposition == bundle.DispositionMicrosoftManaged {
		journey.Add("carried", "inside its TPD, to be Microsoft-managed: it is in no HSM")
	} else {
		journey.Add("wrapped", fmt.Sprintf("by %s, %s", k.imported.WrappedBy, k.imported.Mechanism))
		journey.Add("for the KEK", k.imported.KEK)
		journey.AddPrint("ciphertext", k.imported.Wrapped, false)
	}
	if k.imported.Retained {
		journey.Add("in the HSM", "left extractable, as asked")
	}
	if k.bundle.Sequence > 0 {
		journey.Add("sealed", fmt.Sprintf("%s, bundle %d", sheet.Minute(k.sealedAt), k.bundle.Sequence))
		journey.AddPrint("manifest", k.bundle.Manifest, true)
	}
	journey.Add("approved", k.approvals...)
	if a := k.arrived; a != nil {
		journey.Add("receipt", fmt.Sprintf("%s; their ledger had %d records, head", sheet.Minute(k.arrivedAt), k.theirs.Records))
		journey.AddPrint("", k.theirs.Head, false)
		journey.Add("refused", a.Refused)
		journey.Add("key URL", a.KeyURL)
		journey.Add("HSM platform", a.HSMPlatform)
		journey.Add("tenant", a.Tenant)
	} else {
		journey.Add("receipt", "none yet")
	}
	checks.Add("held", "no control of "+heldAreas()+" refused, or the import would not have been carried out")
	checks.Add("weak, overruled", dash(strings.Join(k.imported.Warnings, ", ")))
	return []sheet.Section{key, journey, checks}
}

// heldAreas counts the controls that an import and a seal stand for, by area.
func heldAreas() string {
	var areas []string
	count := map[string]int{}
	for _, c := range control.All() {
		area := strings.Join(strings.Split(c.ID, "-")[:2], "-")
		if c.Class != control.Refused || !slices.Contains([]string{"KF-TPD", "KF-HSM", "KF-PACKAGE", "KF-TRUST"}, area) {
			continue
		}
		if count[area]++; count[area] == 1 {
			areas = append(areas, area)
		}
	}
	for i, area := range areas {
		areas[i] = fmt.Sprintf("%s (%d)", area, count[area])
	}
	return strings.Join(areas, ", ")
}
