// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"keyferry/bundle"
	"keyferry/offline/internal/ceremony"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/ledger"
	"keyferry/pkg/sheet"
	"keyferry/pkg/trust"
)

// pageOf is a key's page, in one line, after these events of the ledger: pairs of event and data.
func pageOf(t *testing.T, id string, events ...any) string {
	t.Helper()
	l, err := ledger.Open(filepath.Join(t.TempDir(), "ledger.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(events); i += 2 {
		if err := l.Append(time.Now(), events[i].(string), events[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	h, err := ceremony.ReadJournal(l)
	if err != nil {
		t.Fatal(err)
	}
	page := sheet.Sheet{Pages: []sheet.Page{{Sections: sections(h, h.Key(id))}}}.Text()
	return strings.Join(strings.Fields(page), " ")
}

// A page has what the ledger says last of its key, and nothing of an earlier way.
func TestPage(t *testing.T) {
	print := fingerprint.Of([]byte("x"))
	begun := ceremony.ImportBegun{ID: "k", Key: print}
	in := ceremony.Imported{ID: "k", Disposition: bundle.DispositionHSM, Key: print, KEK: "https://v/kek/first", KEKPrint: &print, WrappedBy: "token", Retained: true}
	again, managed := in, in
	again.KEK, again.Retained = "https://v/kek/second", false
	managed.Disposition, managed.KEK, managed.KEKPrint, managed.WrappedBy = bundle.DispositionMicrosoftManaged, "", nil, ""
	box := ceremony.Sealed{Sequence: 1, Manifest: print, Keys: []string{"k"}}
	alice, err := trust.ReadApprover("alice.pub", []byte("sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIK2/Uu/W5nKYVkymQGmO9hpL6KRHEODHW50xIgmSluSwAAAABHNzaDo= Alice"))
	if err != nil {
		t.Fatal(err)
	}
	receipt := ceremony.Received{Answers: print, Keys: []bundle.Arrived{{ID: "k", Key: print, KeyURL: "https://v/keys/k", Tenant: "Active", TenantBy: "kit"}}}
	took := []any{ceremony.EventImportBegun, begun, ceremony.EventImported, in}
	seal := append(slices.Clone(took), ceremony.EventSealed, box, ceremony.EventApproved, ceremony.Approved{Manifest: print, Approver: alice})
	arrive := append(slices.Clone(seal), ceremony.EventReceipt, receipt)
	wrap := []any{ceremony.EventWrapped, again}
	harden := func(retain bool) []any {
		return append(slices.Clone(wrap), ceremony.EventHardened, ceremony.Hardened{ID: "k", Key: print, Retained: retain})
	}
	for name, test := range map[string]struct{ events, good, unwanted []any }{
		"begun":    {took[:2], []any{"the HSM may hold it"}, []any{"receipt", "held"}},
		"sealed":   {seal, []any{"kek/first", "left extractable", "bundle 1", "Alice", "none yet"}, []any{"keys/k"}},
		"arrived":  {arrive, []any{"keys/k", "Active, as a kit's result says"}, []any{"none yet"}},
		"wrapped":  {wrap, []any{"kek/second", "still extractable"}, []any{"imported"}},
		"hardened": {harden(false), []any{"not extractable", "refused the wrap"}, []any{"imported"}},
		"retained": {harden(true), []any{"left extractable"}, []any{"not extractable"}},
		"anew":     {append(arrive, harden(false)...), []any{"kek/second", "not extractable", "none yet"}, []any{"kek/first", "left extractable", "bundle 1", "Alice", "keys/k"}},
		"managed":  {[]any{ceremony.EventImportBegun, begun, ceremony.EventImported, managed}, []any{"it is in no HSM"}, []any{"in the HSM", "extractable", "ciphertext", "KF-HSM"}},
	} {
		page := pageOf(t, "k", test.events...)
		for _, want := range test.good {
			if !strings.Contains(page, want.(string)) {
				t.Errorf("%s: it does not say %q:\n%s", name, want, page)
			}
		}
		for _, no := range test.unwanted {
			if strings.Contains(page, no.(string)) {
				t.Errorf("%s: it says %q:\n%s", name, no, page)
			}
		}
	}
}
