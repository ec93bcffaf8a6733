// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"time"

	"keyferry/bundle"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/dispatch"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/state"
	"keyferry/pkg/trust"
)

// ReceiptResult is a receipt that holds.
type ReceiptResult struct {
	*bundle.ReceiptText
	Sequence uint64 // its number
	Again    bool   // it was taken before
	Newest   uint64 // number of the last receipt for the same bundle, which may be this one
}

// TakeReceipt checks that the receipt is the pinned side's, answers a bundle of this
// side, and speaks of the keys that were sent; then it tells the ledger.
func TakeReceipt(io *cli.IO, s *state.State, path string) (*ReceiptResult, error) {
	j, err := ReadJournal(s.Ledger)
	if err != nil {
		return nil, err
	}
	w, pin, err := PinnedWorld(s)
	if err != nil {
		return nil, err
	}
	identity, err := s.AgeIdentity()
	if err != nil {
		return nil, err
	}
	self, err := OwnKey(s)
	if err != nil {
		return nil, err
	}
	pins := bundle.Pins{
		Purpose: bundle.Receipt, Receiver: self.Fingerprint(), SenderName: w.Name, Sender: w.Signer,
		Rehearsal: s.Rehearsal, Identity: identity, Taken: j.Receipts,
	}
	var v *bundle.Verified
	var text *bundle.ReceiptText
	err = dispatch.Receive(s, path, pins, func(received *bundle.Verified) (err error) {
		v = received
		text, err = v.ReadReceipt()
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := io.CheckClock(s, v.Manifest.Created, "the receipt was sealed"); err != nil {
		return nil, err
	}
	if err := errors.Join(j.compare(text), holdsPins(w, pin, j, text), s.Ledger.Covers(text.Copy)); err != nil {
		return nil, err
	}
	for _, b := range j.Bundles {
		if b.Manifest == text.Answers {
			if err := io.CheckOrder(s, b.at, "its bundle was sealed", v.Manifest.Created, "the receipt was sealed, by the other machine's clock,"); err != nil {
				return nil, err
			}
		}
	}
	if !v.Again {
		err := s.Ledger.Append(time.Now(), EventReceipt, Received{
			Sequence: v.Manifest.Sequence, Manifest: v.Digest, Previous: v.Manifest.Previous, Answers: text.Answers, Ledger: text.Ledger, Keys: text.Keys,
		})
		if err != nil {
			return nil, err
		}
	}
	return &ReceiptResult{text, v.Manifest.Sequence, v.Again, max(v.Manifest.Sequence, j.Answered[text.Answers])}, nil
}

// compare holds a receipt against what was sent.
func (j *Journal) compare(r *bundle.ReceiptText) error {
	i := slices.IndexFunc(j.Bundles, func(b Sealed) bool { return b.Manifest == r.Answers })
	if i < 0 {
		return control.ReceiptUnknown.Refuse("the receipt answers the manifest %s, which this side did not seal", r.Answers)
	}
	var answered []string
	for _, a := range r.Keys {
		k := j.Key(a.ID)
		came := a.Refused == "" || a.Key != fingerprint.Fingerprint{}
		if k == nil || came && a.Key != k.Key {
			return control.ReceiptDiffers.Refuse("the key %s that arrived is not the key that was sent", control.Quote(a.ID))
		}
		if a.Refused == "" && k.Managed() != (a.KeyURL == "") {
			return control.ReceiptDiffers.Refuse("the key %s was sent as %s and arrived with the key URL %s", k.ID, k.Disposition, control.Quote(a.KeyURL))
		}
		answered = append(answered, a.ID)
	}
	if !slices.Equal(answered, j.Bundles[i].Keys) {
		return control.ReceiptDiffers.Refuse("the receipt speaks of the keys %q, the bundle held %q", answered, j.Bundles[i].Keys)
	}
	return nil
}

// holdsPins holds a receipt against the pinned security world: the other side
// works with that one, its vault and its approvals, and the vault keeps in an HSM
// what was sent.
func holdsPins(w *trust.World, pin fingerprint.Fingerprint, j *Journal, r *bundle.ReceiptText) error {
	switch approved := w.Who(ApproverKeys(r.Approved)); {
	case r.World != pin || r.Threshold != w.Threshold:
		return control.ReceiptPins.Refuse("the connected side took the bundle under the security world %s with the threshold %d; pinned here is %s with %d", r.World, r.Threshold, pin, w.Threshold)
	case len(approved) < w.Threshold:
		return control.ReceiptPins.Refuse("the receipt names %d of the security world's approvers, which asks for %d", len(approved), w.Threshold)
	}
	for _, a := range r.Keys {
		k := j.Key(a.ID)
		switch {
		case k == nil: // compare refuses it
		case a.WrappedBy != k.WrappedBy:
			return control.ReceiptDiffers.Refuse("the key %s was wrapped by %s; the receipt says %s", k.ID, control.Quote(k.WrappedBy), control.Quote(a.WrappedBy))
		case !reflect.DeepEqual(a.KEK, k.Record.KEKPrint):
			return control.ReceiptDiffers.Refuse("the receipt names another KEK of the key %s than the one that it was wrapped for", k.ID)
		case a.KeyURL == "":
		case !strings.HasPrefix(a.KeyURL, w.Vault+"/keys/"):
			return control.ReceiptPins.Refuse("the key %s arrived at %s, which is not in the pinned vault %s", k.ID, a.KeyURL, w.Vault)
		case a.HSMPlatform == softwarePlatform:
			return control.ReceiptPins.Refuse("the vault keeps the key %s in software (hsmPlatform 0), not in an HSM", k.ID)
		}
	}
	return nil
}

// softwarePlatform is the hsmPlatform of a key that a vault keeps in software.
const softwarePlatform = "0"
