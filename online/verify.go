// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"keyferry/bundle"
	"keyferry/online/internal/ceremony"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/dispatch"
	"keyferry/pkg/ledger"
	"keyferry/pkg/state"
	"keyferry/pkg/trust"
)

var verifyCommand = cli.Command{
	Name:    "verify",
	Summary: "check a bundle; changes nothing",
	Shows:   true,
	Usage: `
Usage: online verify BUNDLE [--out-of-order]

Checks signature, approvals, receiver, sequence, digests and contents of a
bundle from the stick, and shows what it holds. Changes nothing.

  --out-of-order   take a bundle that is older than one that was taken, if its own
                   number never was

Example: online verify /media/stick/keyferry-vault-room-1.kfb
`,
	Setup: func(flags *pflag.FlagSet) cli.Run {
		outOfOrder := addOutOfOrder(flags)
		return func(_ context.Context, io *cli.IO, args []string) error {
			path, err := cli.OneArgument(args, "bundle")
			if err != nil {
				return err
			}
			return withState(io, func(s *state.State) error {
				return withBundle(io, s, path, *outOfOrder, func(_ *ceremony.Journal, r received) error { return showBundle(io, s, r) })
			})
		}
	},
}

// addOutOfOrder adds the flag for a bundle whose stick came after a newer one's.
func addOutOfOrder(flags *pflag.FlagSet) *bool { return flags.Bool("out-of-order", false, "") }

// received is a bundle from the stick that passed every check, and what this side
// makes of it.
type received struct {
	*bundle.Verified
	copy     ledger.Mark      // of the sender's ledger that came with it
	approved []trust.Approver // who did, as the security world has them
}

// withBundle receives a bundle of the offline side and runs f on it.
func withBundle(io *cli.IO, s *state.State, path string, outOfOrder bool, f func(h *ceremony.Journal, r received) error) error {
	h, err := ceremony.ReadJournal(s.Ledger)
	if err != nil {
		return err
	}
	pins, err := bundlePins(s, h)
	if err != nil {
		return err
	}
	pins.OutOfOrder = outOfOrder
	return dispatch.Receive(s, path, pins, func(v *bundle.Verified) error {
		r := received{Verified: v}
		if r.copy, err = readCopy(h, v); err != nil {
			return err
		}
		if err := checkGUIDs(v.Index.Keys); err != nil {
			return err
		}
		w, _, err := ownWorld(s)
		if err != nil {
			return err
		}
		r.approved = w.Who(v.Approvals)
		if !v.Again && v.Manifest.Sequence < h.LastAccepted() {
			io.Warn("bundle number %d comes after number %d, out of order", v.Manifest.Sequence, h.LastAccepted())
		}
		warnOfGap(io, h, v)
		return f(h, r)
	})
}

// warnOfGap says which bundles will be out of order once this one is uploaded.
func warnOfGap(io *cli.IO, h *ceremony.Journal, v *bundle.Verified) {
	for n := h.LastAccepted() + 1; n < v.Manifest.Sequence; n++ {
		if n == h.LastAccepted()+maxGap {
			io.Warn("nor were others before this one")
			return
		}
		io.Warn("bundle number %d was not uploaded here: once this one is, it needs --out-of-order [%s]", n, control.BundleReplay.ID)
	}
}

// maxGap bounds how many bundles are named.
const maxGap = 5

// readCopy reads the copy of the sender's ledger, and refuses one that does not
// go on where that of the bundle before ended (KF-BUNDLE-TRANSCRIPT).
func readCopy(h *ceremony.Journal, v *bundle.Verified) (ledger.Mark, error) {
	data, err := v.ReadFile(bundle.TranscriptName)
	if err != nil {
		return ledger.Mark{}, err
	}
	l, err := ledger.ReadCopy(data)
	for _, a := range h.Bundles {
		if err == nil && a.Sequence < v.Manifest.Sequence {
			err = l.Covers(a.Copy)
		}
	}
	if err != nil {
		return ledger.Mark{}, control.BundleTranscript.Refuse("the sender's ledger: %w", err)
	}
	return l.Mark(), nil
}

// checkGUIDs refuses two keys with one GUID: the tenant would take the first, and
// an upload stop at the second.
func checkGUIDs(keys []bundle.Key) error {
	seen := map[string]string{} // GUID → key identifier
	for _, k := range keys {
		if first, ok := seen[k.SLC]; ok {
			return control.TPDGUIDUnique.Refuse("the bundle's keys %s and %s have one GUID, %s", first, k.ID, control.Quote(k.SLC))
		}
		seen[k.SLC] = k.ID
	}
	return nil
}

func bundlePins(s *state.State, h *ceremony.Journal) (bundle.Pins, error) {
	card, _, err := pinnedCard(s)
	if err != nil {
		return bundle.Pins{}, err
	}
	w, _, err := ownWorld(s)
	if err != nil {
		return bundle.Pins{}, err
	}
	identity, err := s.AgeIdentity()
	if err != nil {
		return bundle.Pins{}, err
	}
	return bundle.Pins{
		Purpose: bundle.KeyTransfer, Receiver: w.Signer.Fingerprint(), SenderName: card.Name, Sender: card.Signer,
		Rehearsal: s.Rehearsal, Approvers: w.ApproverKeys(), Threshold: w.Threshold, Identity: identity, Taken: h.Taken(),
	}, nil
}

func showBundle(io *cli.IO, s *state.State, r received) error {
	w, _, err := ownWorld(s)
	if err != nil {
		return err
	}
	m := r.Manifest
	var text strings.Builder
	fmt.Fprintf(&text, "Bundle %s, number %d of %s, sealed %s\n", m.ID, m.Sequence, m.Sender.Name, m.Created.Format("2006-01-02 15:04 MST"))
	fmt.Fprintf(&text, "The manifest's fingerprint:\n%s\n", r.Digest.Spoken())
	for _, k := range r.Index.Keys {
		if k.MicrosoftManaged() {
			fmt.Fprintf(&text, "%s: key of SLC %s, in its TPD, to be Microsoft-managed\n", k.ID, k.SLC)
			continue
		}
		fmt.Fprintf(&text, "%s: key of SLC %s, wrapped in %s by %s\n  for %s\n", k.ID, k.SLC, k.WrappedBy, k.Mechanism, k.KID)
	}
	if warnings := m.Warnings(); len(warnings) > 0 {
		fmt.Fprintf(&text, "Recorded on the way: %s\n", strings.Join(warnings, ", "))
	}
	for _, a := range r.approved {
		fmt.Fprintf(&text, "Approved by %s\n", a)
	}
	if w.Threshold > 0 {
		fmt.Fprintf(&text, "Approvals: %d of the %d that the security world asks for\n", len(r.approved), w.Threshold)
	}
	if r.Again {
		text.WriteString("This bundle was taken before; an upload goes on where it stopped.\n")
	}
	text.WriteString("Every check holds; nothing was changed.")
	return io.Result(map[string]any{
		"result": "SUCCESS", "manifest": m, "digest": r.Digest, "keys": r.Index.Keys, "approvals": len(r.approved), "approved_by": r.approved, "threshold": w.Threshold, "again": r.Again,
	}, text.String())
}
