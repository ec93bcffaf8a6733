// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"keyferry/bundle"
	"keyferry/online/internal/ceremony"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/state"
)

var verifyCommand = cli.Command{
	Name:    "verify",
	Summary: "check a bundle; changes nothing",
	Shows:   true,
	Usage: `
Usage: online verify BUNDLE [flags]

Checks signature, approvals, receiver, sequence, digests and contents of a
bundle from the stick, and shows what it holds. Then it compares the KEK that
each key was wrapped for with the vault's; where the vault can't be asked, it
says so, and ends well all the same. Changes nothing.

  --out-of-order   take a bundle that is older than one that was taken, if its
                   own number never was

Example: online verify /media/stick/keyferry-vault-room-1.kfb
` + signInHelp,
	Setup: func(flags *pflag.FlagSet) cli.Run {
		outOfOrder, signIn := addOutOfOrder(flags), addSignIn(flags)
		return func(ctx context.Context, io *cli.IO, args []string) error {
			path, err := io.OneArgument(args, "bundle")
			if err != nil {
				return err
			}
			return withBundle(io, path, *outOfOrder, func(s *state.State, j *ceremony.Journal, r *ceremony.Received) error {
				compared, err := compareKEKs(ctx, io, s, signIn, r)
				if err != nil {
					return err
				}
				return showBundle(io, s, j, r, compared)
			})
		}
	},
}

// addOutOfOrder adds the flag for a bundle whose stick came after a newer one's.
func addOutOfOrder(flags *pflag.FlagSet) *bool { return flags.Bool("out-of-order", false, "") }

// compareKEKs holds the KEKs that a bundle's keys were wrapped for against the vault's.
// Where the vault does not answer or does not have the KEK, nothing was compared, and a
// person is told; an upload then says why it can't be.
func compareKEKs(ctx context.Context, io *cli.IO, s *state.State, signIn *signIn, r *ceremony.Received) (compared bool, err error) {
	keks := keksOf(r)
	if len(keks) == 0 {
		return false, nil
	}
	err = withCloud(ctx, io, s, signIn, func(c ceremony.Cloud) error {
		for _, k := range keks {
			if _, err := c.Vault.CompareKEK(ctx, k.KID, *k.KEK); err != nil {
				return err
			}
		}
		return nil
	})
	var refusal *control.Refusal
	if errors.As(err, &refusal) && (refusal.Control.Class == control.Environment || control.Is(err, control.VaultKEKForeign)) {
		io.Warn("the KEK was not compared with the vault: %v", err)
		return false, nil
	}
	return err == nil, err
}

// keksOf returns a key of the bundle for each KEK that one was wrapped for.
func keksOf(r *ceremony.Received) (keks []bundle.Key) {
	for _, k := range r.Index.Keys {
		if k.KEK != nil && !slices.ContainsFunc(keks, func(other bundle.Key) bool { return other.KID == k.KID && *other.KEK == *k.KEK }) {
			keks = append(keks, k)
		}
	}
	return keks
}

func showBundle(io *cli.IO, s *state.State, j *ceremony.Journal, r *ceremony.Received, compared bool) error {
	w, m := r.World, r.Manifest
	var text strings.Builder
	fmt.Fprintf(&text, "Bundle %s, number %d of %s, sealed %s\n", m.ID, m.Sequence, m.Sender.Name, cli.Clock(m.Created))
	fmt.Fprintf(&text, "The manifest's fingerprint:\n%s\n", r.Digest.Spoken())
	for _, k := range r.Index.Keys {
		if k.MicrosoftManaged() {
			fmt.Fprintf(&text, "%s: key of SLC %s, in its TPD, to be Microsoft-managed\n", k.ID, k.SLC)
			continue
		}
		fmt.Fprintf(&text, "%s: key of SLC %s, wrapped in %s by %s\n  for %s\n", k.ID, k.SLC, k.WrappedBy, k.Mechanism, k.KID)
	}
	for _, k := range keksOf(r) {
		face := k.KEK.Spoken()
		if n := len(j.KEKs); n > 0 && j.KEKs[n-1].KEK == *k.KEK { // only one fingerprint in words is on the screen
			face = k.KEK.Grouped() + "\nin words: " + io.Line("online", "fingerprint", "kek")
		}
		fmt.Fprintf(&text, "The KEK's fingerprint, for %s:\n%s\n", k.KID, face)
	}
	switch {
	case compared:
		text.WriteString("It is the KEK that the vault has.\n")
	case len(keksOf(r)) > 0:
		text.WriteString("It was not compared with the vault's.\n")
	}
	if warnings := m.Warnings(); len(warnings) > 0 {
		fmt.Fprintf(&text, "Recorded on the way: %s\n", strings.Join(warnings, ", "))
	}
	for _, a := range r.Approved {
		fmt.Fprintf(&text, "Approved by %s\n", a)
	}
	if w.Threshold > 0 {
		fmt.Fprintf(&text, "Approvals: %d of the %d that the security world asks for\n", len(r.Approved), w.Threshold)
	}
	if r.Again {
		text.WriteString("This bundle was taken before; an upload goes on where it stopped.\n")
	}
	text.WriteString("Every check holds; nothing was changed.")
	return result(io, s, r, map[string]any{
		"result": "SUCCESS", "manifest": m, "digest": r.Digest, "keys": r.Index.Keys, "approvals": len(r.Approved), "approved_by": r.Approved, "threshold": w.Threshold, "again": r.Again, "kek_compared": compared,
	}, text.String())
}
