// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"regexp"
	"slices"

	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/keyid"
	"keyferry/pkg/ledger"
	"keyferry/pkg/strictjson"
	"keyferry/pkg/trust"
)

// ReceiptName is the path of the one file in a receipt.
const ReceiptName = "receipt.json"

const receiptFormat = "keyferry-receipt-v2"

// ReceiptText is what a receipt says: under which security world a bundle was
// taken, who had approved it, and what became of each of its keys.
type ReceiptText struct {
	Format    string                  `json:"format"`
	Answers   fingerprint.Fingerprint `json:"answers"`   // manifest of the bundle
	World     fingerprint.Fingerprint `json:"world"`     // the security world's package, as the receiver has it
	Threshold int                     `json:"threshold"` // approvals that it asks for
	Approved  []trust.Approver        `json:"approved"`  // of its approvers, those who signed the bundle
	Copy      ledger.Mark             `json:"copy"`      // of the ledger that came in the bundle
	Ledger    ledger.Mark             `json:"ledger"`    // of the receiver's own, when it sealed the receipt
	Keys      []Arrived               `json:"keys"`
}

// Arrived says what became of one key.
type Arrived struct {
	ID          string                   `json:"id"`
	Key         fingerprint.Fingerprint  `json:"key"`          // of the public key in the vault, or of a Microsoft-managed key, as PKIX DER
	KeyURL      string                   `json:"key_url"`      // with version; "" for a Microsoft-managed key, as are the next two
	HSMPlatform string                   `json:"hsm_platform"` // as the vault says
	KEK         *fingerprint.Fingerprint `json:"kek"`          // of the PKIX DER of the KEK that the bundle's key was wrapped for; null for a Microsoft-managed key
	WrappedBy   string                   `json:"wrapped_by"`
	Tenant      string                   `json:"tenant"`    // Archived or Active; empty: not in the tenant yet
	TenantBy    string                   `json:"tenant_by"` // who says so: practice, powershell, or kit, whose result nobody signs
	Warnings    []string                 `json:"warnings"`  // control IDs: those of the bundle, then what was overridden on arrival
	Refused     string                   `json:"refused"`   // control ID and reason; empty when it arrived
}

// Encode writes the receipt's text.
func (r ReceiptText) Encode() ([]byte, error) {
	r.Format = receiptFormat
	if r.Approved == nil {
		r.Approved = []trust.Approver{}
	}
	return strictjson.MarshalLines(r)
}

// ReadReceipt reads the text of a verified receipt.
func (v *Verified) ReadReceipt() (*ReceiptText, error) {
	data, err := v.File(ReceiptName)
	if err != nil {
		return nil, err
	}
	return parseReceipt(data)
}

var (
	platformSyntax = regexp.MustCompile(`^[0-9A-Za-z]{0,32}$`)
	tenantSyntax   = regexp.MustCompile(`^(Active|Archived)?$`)
	witnessSyntax  = regexp.MustCompile(`^(practice|powershell|kit)?$`)
)

func parseReceipt(data []byte) (*ReceiptText, error) {
	var r ReceiptText
	if err := checkFormat("receipt", data, receiptFormat); err != nil {
		return nil, err
	}
	if err := strictjson.UnmarshalLines(data, maxIndex, &r); err != nil {
		return nil, control.BundleContents.Refuse("the receipt: %w", err)
	}
	if r.Threshold < 0 || r.Approved == nil {
		return nil, control.BundleContents.Refuse("the receipt has no list of approvals")
	}
	for _, a := range r.Approved {
		if !a.Valid() {
			return nil, control.BundleContents.Refuse("the receipt names the approver %s", control.Quote(a.Name))
		}
	}
	for _, k := range r.Keys {
		switch {
		case !keyid.Valid(k.ID):
			return nil, control.BundleContents.Refuse("the receipt has the key identifier %s", control.Quote(k.ID))
		case k.KeyURL != "" && !trust.ValidKID(k.KeyURL):
			return nil, control.BundleContents.Refuse("the receipt has the key URL %s of %s, which is not the URL of a key and its version", control.Quote(k.KeyURL), k.ID)
		case !platformSyntax.MatchString(k.HSMPlatform) || !tenantSyntax.MatchString(k.Tenant) || !witnessSyntax.MatchString(k.TenantBy):
			return nil, control.BundleContents.Refuse("the receipt says of %s what it can't: platform %s, tenant %s by %s", k.ID, control.Quote(k.HSMPlatform), control.Quote(k.Tenant), control.Quote(k.TenantBy))
		case k.WrappedBy != "" && k.WrappedBy != WrappedByToken && k.WrappedBy != WrappedBySoftware:
			return nil, control.BundleContents.Refuse("the receipt says that %s was wrapped by %s", k.ID, control.Quote(k.WrappedBy))
		case !validArrivalWarnings(k.Warnings):
			return nil, control.BundleContents.Refuse("the receipt's warnings of %s are not control IDs", k.ID)
		case control.Plain(k.Refused) != k.Refused:
			return nil, control.BundleContents.Refuse("the receipt holds the text %s", control.Quote(k.Refused))
		}
	}
	return &r, nil
}

// validArrivalWarnings reports whether a list names control IDs. They are in the
// order in which they came up.
func validArrivalWarnings(list []string) bool {
	return list != nil && len(list) <= 2*maxWarnings && !slices.ContainsFunc(list, func(id string) bool { return !warningSyntax.MatchString(id) })
}
