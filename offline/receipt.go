// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"keyferry/bundle"
	"keyferry/offline/internal/ceremony"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/dispatch"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/state"
	"keyferry/pkg/trust"
)

var receiptCommand = cli.Command{
	Name:    "receipt",
	Summary: "take the connected side's receipt and close the ledger",
	Usage: `
Usage: offline receipt FILE

Checks that the receipt is from the pinned connected side and answers a bundle
that this side sealed, that each key that was sent is the key that arrived, and
records where it is.

Example: offline receipt /media/stick/keyferry-online-1.kfb
`,
	Setup: func(*pflag.FlagSet) cli.Run {
		return func(_ context.Context, io *cli.IO, args []string) error {
			path, err := io.OneArgument(args, "receipt")
			if err != nil {
				return err
			}
			return withState(io, func(s *state.State) error { return takeReceipt(io, s, path) })
		}
	},
}

func takeReceipt(io *cli.IO, s *state.State, path string) error {
	h, err := ceremony.ReadJournal(s.Ledger)
	if err != nil {
		return err
	}
	v, text, err := openReceipt(s, h, path)
	if err != nil {
		return err
	}
	w, pin, err := pinnedWorld(s)
	if err != nil {
		return err
	}
	if err := errors.Join(compare(h, text), holdsPins(w, pin, h, text), s.Ledger.Covers(text.Copy)); err != nil {
		return err
	}
	if !v.Again {
		err := s.Ledger.Append(time.Now(), ceremony.EventReceipt, ceremony.Received{
			Sequence: v.Manifest.Sequence, Manifest: v.Digest, Previous: v.Manifest.Previous, Answers: text.Answers, Ledger: text.Ledger, Keys: text.Keys,
		})
		if err != nil {
			return err
		}
	}
	return result(io, s, map[string]any{"answers": text.Answers, "keys": text.Keys, "again": v.Again}, describeReceipt(text))
}

func describeReceipt(r *bundle.ReceiptText) string {
	var lines []string
	for _, a := range r.Approved {
		lines = append(lines, "Taken as approved by "+a.String())
	}
	for _, k := range r.Keys {
		if len(k.Warnings) > 0 {
			lines = append(lines, fmt.Sprintf("%s: recorded on the way: %s", k.ID, strings.Join(k.Warnings, ", ")))
		}
		switch {
		case k.Refused != "":
			how := "did not arrive"
			if k.KeyURL != "" {
				how = fmt.Sprintf("arrived in the vault as %s, but", k.KeyURL)
			}
			lines = append(lines, fmt.Sprintf("%s: %s: %s", k.ID, how, k.Refused))
		case k.KeyURL == "" && k.Tenant == "":
			lines = append(lines, fmt.Sprintf("%s: handed over in its TPD, to be Microsoft-managed; of the tenant nothing is known", k.ID))
		case k.KeyURL == "":
			lines = append(lines, fmt.Sprintf("%s: arrived in the tenant as a Microsoft-managed key, %s", k.ID, strings.ToLower(k.Tenant)))
		case k.Tenant == "":
			lines = append(lines, fmt.Sprintf("%s: arrived in the vault as %s; of the tenant nothing is known", k.ID, k.KeyURL))
		default:
			lines = append(lines, fmt.Sprintf("%s: arrived in the vault as %s, %s in the tenant", k.ID, k.KeyURL, strings.ToLower(k.Tenant)))
		}
	}
	return strings.Join(append(lines, ending(r.Keys)), "\n")
}

// ending closes the ledger for a bundle only where nothing is left open: a
// receipt may have been sealed before the tenant had the keys.
func ending(keys []bundle.Arrived) string {
	switch {
	case slices.ContainsFunc(keys, func(k bundle.Arrived) bool { return k.Refused != "" }):
		return "Not all that was sent has arrived. A later receipt may tell more."
	case slices.ContainsFunc(keys, func(k bundle.Arrived) bool { return k.Tenant == "" }):
		return "What was sent is what arrived, as far as it has. Whether it is in the tenant is open:\nonce the upload is done, let the connected side seal another receipt, and take it here."
	}
	return "What was sent is what arrived. The ledger is closed for this bundle."
}

func openReceipt(s *state.State, h *ceremony.Journal, path string) (v *bundle.Verified, text *bundle.ReceiptText, err error) {
	pins, err := receiptPins(s, h)
	if err != nil {
		return nil, nil, err
	}
	err = dispatch.Receive(s, path, pins, func(received *bundle.Verified) error {
		v = received
		text, err = v.ReadReceipt()
		return err
	})
	return v, text, err
}

func receiptPins(s *state.State, h *ceremony.Journal) (bundle.Pins, error) {
	w, _, err := pinnedWorld(s)
	if err != nil {
		return bundle.Pins{}, err
	}
	identity, err := s.AgeIdentity()
	if err != nil {
		return bundle.Pins{}, err
	}
	self, err := ownKey(s)
	if err != nil {
		return bundle.Pins{}, err
	}
	return bundle.Pins{
		Purpose: bundle.Receipt, Receiver: self.Fingerprint(), SenderName: w.Name, Sender: w.Signer,
		Rehearsal: s.Rehearsal, Identity: identity, Taken: h.Receipts,
	}, nil
}

// compare holds a receipt against what was sent.
func compare(h *ceremony.Journal, r *bundle.ReceiptText) error {
	i := slices.IndexFunc(h.Bundles, func(b ceremony.Sealed) bool { return b.Manifest == r.Answers })
	if i < 0 {
		return control.ReceiptUnknown.Refuse("the receipt answers the manifest %s, which this side did not seal", r.Answers)
	}
	var answered []string
	for _, a := range r.Keys {
		k := h.Key(a.ID)
		came := a.Refused == "" || a.Key != fingerprint.Fingerprint{}
		if k == nil || came && a.Key != k.Key {
			return control.ReceiptDiffers.Refuse("the key %s that arrived is not the key that was sent", control.Quote(a.ID))
		}
		if a.Refused == "" && k.Managed() != (a.KeyURL == "") {
			return control.ReceiptDiffers.Refuse("the key %s was sent as %s and arrived with the key URL %s", k.ID, k.Disposition, control.Quote(a.KeyURL))
		}
		answered = append(answered, a.ID)
	}
	if !slices.Equal(answered, h.Bundles[i].Keys) {
		return control.ReceiptDiffers.Refuse("the receipt speaks of the keys %q, the bundle held %q", answered, h.Bundles[i].Keys)
	}
	return nil
}

// holdsPins holds a receipt against the pinned security world: the other side
// works with that one, its vault and its approvals, and the vault keeps in an HSM
// what was sent.
func holdsPins(w *trust.World, pin fingerprint.Fingerprint, h *ceremony.Journal, r *bundle.ReceiptText) error {
	switch approved := w.Who(ceremony.ApproverKeys(r.Approved)); {
	case r.World != pin || r.Threshold != w.Threshold:
		return control.ReceiptPins.Refuse("the connected side took the bundle under the security world %s with the threshold %d; pinned here is %s with %d", r.World, r.Threshold, pin, w.Threshold)
	case len(approved) < w.Threshold:
		return control.ReceiptPins.Refuse("the receipt names %d of the security world's approvers, which asks for %d", len(approved), w.Threshold)
	}
	for _, a := range r.Keys {
		k := h.Key(a.ID)
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
