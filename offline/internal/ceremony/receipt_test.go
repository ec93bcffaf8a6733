// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"bytes"
	"crypto/ed25519"
	"testing"

	"keyferry/bundle"
	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/sshsig"
	"keyferry/pkg/trust"
)

// A receipt that the pinned side signed, held against the pins: each fact of it
// that can be another one is refused.
func TestReceiptAgainstPins(t *testing.T) {
	approver := func(n byte) trust.Approver {
		key, err := sshsig.NewPublicKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, 32)).Public())
		if err != nil {
			t.Fatal(err)
		}
		return trust.Approver{Name: "approver", Key: key}
	}
	alice, bob, stranger := approver(1), approver(2), approver(3)
	w := &trust.World{Vault: "https://contoso.vault.azure.net", Approvers: []trust.Approver{alice, bob}, Threshold: 2}
	pin := fingerprint.Of([]byte("world"))
	h := &Journal{Keys: []*Key{{ID: "k", Disposition: bundle.DispositionHSM, WrappedBy: "token", Record: Imported{KEKPrint: &pin}}}}
	for _, test := range []struct {
		name   string
		change func(r *bundle.ReceiptText)
		want   control.Control // none: it holds
	}{
		{"as it is", func(*bundle.ReceiptText) {}, control.Control{}},
		{"a vault that says nothing of its platform", func(r *bundle.ReceiptText) { r.Keys[0].HSMPlatform = "" }, control.Control{}},
		{"not in the vault yet", func(r *bundle.ReceiptText) { r.Keys[0].KeyURL = "" }, control.Control{}},
		{"another security world", func(r *bundle.ReceiptText) { r.World = fingerprint.Of(nil) }, control.ReceiptPins},
		{"another threshold", func(r *bundle.ReceiptText) { r.Threshold = 0 }, control.ReceiptPins},
		{"an approval less", func(r *bundle.ReceiptText) { r.Approved = r.Approved[:1] }, control.ReceiptPins},
		{"an approver twice", func(r *bundle.ReceiptText) { r.Approved[1] = alice }, control.ReceiptPins},
		{"a stranger's approval", func(r *bundle.ReceiptText) { r.Approved[1] = stranger }, control.ReceiptPins},
		{"another vault", func(r *bundle.ReceiptText) { r.Keys[0].KeyURL = "https://evil.vault.azure.net/keys/k/1" }, control.ReceiptPins},
		{"a vault whose name goes on", func(r *bundle.ReceiptText) {
			r.Keys[0].KeyURL = "https://contoso.vault.azure.net.evil.example/keys/k/1"
		}, control.ReceiptPins},
		{"kept in software", func(r *bundle.ReceiptText) { r.Keys[0].HSMPlatform = "0" }, control.ReceiptPins},
		{"wrapped for another KEK", func(r *bundle.ReceiptText) { r.Keys[0].KEK = &r.Answers }, control.ReceiptDiffers},
		{"wrapped for no KEK", func(r *bundle.ReceiptText) { r.Keys[0].KEK = nil }, control.ReceiptDiffers},
		{"wrapped by something else", func(r *bundle.ReceiptText) { r.Keys[0].WrappedBy = "software" }, control.ReceiptDiffers},
	} {
		r := &bundle.ReceiptText{World: pin, Threshold: 2, Approved: []trust.Approver{alice, bob}, Keys: []bundle.Arrived{
			{ID: "k", KeyURL: w.Vault + "/keys/k/1", HSMPlatform: "2", WrappedBy: "token", KEK: &pin},
		}}
		test.change(r)
		if err := holdsPins(w, pin, h, r); test.want.ID == "" && err != nil || test.want.ID != "" && !control.Is(err, test.want) {
			t.Errorf("%s: %v, want %s", test.name, err, test.want.ID)
		}
	}
}
