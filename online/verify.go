// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"keyferry/online/internal/ceremony"
	"keyferry/pkg/cli"
	"keyferry/pkg/state"
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
			path, err := io.OneArgument(args, "bundle")
			if err != nil {
				return err
			}
			return withBundle(io, path, *outOfOrder, func(s *state.State, _ *ceremony.Journal, r *ceremony.Received) error {
				return showBundle(io, s, r)
			})
		}
	},
}

// addOutOfOrder adds the flag for a bundle whose stick came after a newer one's.
func addOutOfOrder(flags *pflag.FlagSet) *bool { return flags.Bool("out-of-order", false, "") }

func showBundle(io *cli.IO, s *state.State, r *ceremony.Received) error {
	w, m := r.World, r.Manifest
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
		"result": "SUCCESS", "manifest": m, "digest": r.Digest, "keys": r.Index.Keys, "approvals": len(r.Approved), "approved_by": r.Approved, "threshold": w.Threshold, "again": r.Again,
	}, text.String())
}
