// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/ledger"
	"keyferry/pkg/strictjson"
)

// ReceiptName is the path of the one file in a receipt.
const ReceiptName = "receipt.json"

const receiptFormat = "keyferry-receipt-v1"

// ReceiptText is what a receipt says: what became of each key of a bundle.
type ReceiptText struct {
	Format  string                  `json:"format"`
	Answers fingerprint.Fingerprint `json:"answers"` // manifest of the bundle
	Copy    ledger.Mark             `json:"copy"`    // of the ledger that came in the bundle
	Ledger  ledger.Mark             `json:"ledger"`  // of the receiver's own, when it sealed the receipt
	Keys    []Arrived               `json:"keys"`
}

// Arrived says what became of one key.
type Arrived struct {
	ID          string                  `json:"id"`
	Key         fingerprint.Fingerprint `json:"key"`          // of the public key in the vault, or of a Microsoft-managed key, as PKIX DER
	KeyURL      string                  `json:"key_url"`      // with version; "" for a Microsoft-managed key, as are the next two
	HSMPlatform string                  `json:"hsm_platform"` // as the vault says
	WrappedBy   string                  `json:"wrapped_by"`
	Tenant      string                  `json:"tenant"`    // Archived or Active; empty: not in the tenant yet
	TenantBy    string                  `json:"tenant_by"` // who says so: practice, powershell, or kit, whose result nobody signs
	Warnings    []string                `json:"warnings"`  // control IDs: what the bundle had, then what was overridden on arrival
	Refused     string                  `json:"refused"`   // control ID and reason; empty when it arrived
}

// Encode writes the receipt's text.
func (r ReceiptText) Encode() ([]byte, error) {
	r.Format = receiptFormat
	return strictjson.MarshalLines(r)
}

// ReadReceipt reads the text of a verified receipt.
func (v *Verified) ReadReceipt() (*ReceiptText, error) {
	data, err := v.ReadFile(ReceiptName)
	if err != nil {
		return nil, err
	}
	return parseReceipt(data)
}

func parseReceipt(data []byte) (*ReceiptText, error) {
	var r ReceiptText
	if err := checkFormat("receipt", data, receiptFormat); err != nil {
		return nil, err
	}
	if err := strictjson.UnmarshalLines(data, maxIndex, &r); err != nil {
		return nil, control.BundleContents.Refuse("the receipt: %w", err)
	}
	for _, k := range r.Keys {
		for _, text := range append([]string{k.ID, k.KeyURL, k.HSMPlatform, k.WrappedBy, k.Tenant, k.TenantBy, k.Refused}, k.Warnings...) {
			if control.Plain(text) != text { // it will be shown to people
				return nil, control.BundleContents.Refuse("the receipt holds the text %s", control.Quote(text))
			}
		}
	}
	return &r, nil
}
