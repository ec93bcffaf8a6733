// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"keyferry/bundle"
	"keyferry/offline/internal/ceremony"
	"keyferry/pkg/cli"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/state"
)

var approveCommand = cli.Command{
	Name:    "approve",
	Summary: "show what is to be approved, and attach signatures",
	Usage: `
Usage: offline approve [REQUEST] [--signature FILE]…

Shows what the last bundle carries and who has approved it, and attaches
approvals to it. Each approver whom the security world lists counts once. Once
there are enough, "offline seal" lets the bundle out.

An approver reads the request that "offline seal" wrote, and signs it, with
OpenSSH alone, on a machine of their own, with any key that "online init
--approver" named:

  ssh-keygen -Y sign -f KEY -n keyferry-bundle-v2 keyferry-vault-1.request.json

That writes keyferry-vault-1.request.json.sig, and asks before it
overwrites the signature of another approver: each signs a copy of their own.
The fingerprint to compare with the one that "offline seal" showed is the file's
SHA-256.

REQUEST, where it is given, must be the request for this bundle, byte for byte.

  --signature FILE   what ssh-keygen wrote (may repeat)

Example: offline approve --signature alice.sig --signature bob.sig
`,
	Setup: func(flags *pflag.FlagSet) cli.Run {
		signatures := flags.StringArray("signature", nil, "")
		return func(_ context.Context, io *cli.IO, args []string) error {
			request := ""
			if len(args) > 0 {
				var err error
				if request, err = io.OneArgument(args, "request"); err != nil {
					return err
				}
			}
			return withState(io, func(s *state.State) error {
				done, err := ceremony.Approve(s, request, *signatures)
				if err != nil {
					return err
				}
				return reportApprovals(io, s, done)
			})
		}
	},
}

func reportApprovals(io *cli.IO, s *state.State, done *ceremony.ApproveResult) error {
	w, b, who := done.World, done.Sealed, done.Approved
	lines := append(describeManifest(done.Request), "The manifest's fingerprint:", b.Manifest.Grouped(), "in words: "+io.Line("offline", "fingerprint", "bundle"))
	for _, a := range who {
		lines = append(lines, "Approved by "+a.String())
	}
	lines = append(lines, fmt.Sprintf("Approvals: %d of the %d that the security world asks for", len(who), w.Threshold))
	if len(who) < w.Threshold {
		lines = append(lines, w.ApprovalRule())
	}
	doc := map[string]any{"sequence": b.Sequence, "manifest": b.Manifest, "request": done.Request, "approved_by": who, "threshold": w.Threshold, "held_back": b.HeldBack}
	return result(io, s, doc, strings.Join(lines, "\n"))
}

// describeManifest says what a person approves.
func describeManifest(m bundle.Manifest) []string {
	lines := []string{
		fmt.Sprintf("Bundle %d of %s (%s), sealed %s", m.Sequence, m.Sender.Name, state.KindName(m.Rehearsal), cli.Clock(m.Created)),
		"for the connected side that signs with " + m.Receiver.String(),
	}
	var keks []fingerprint.Fingerprint
	for _, k := range m.Keys {
		fate := "to be imported into the vault's HSM"
		if k.KEK == nil {
			fate = "to be Microsoft-managed, inside its TPD"
		}
		lines = append(lines, fmt.Sprintf("%s: key of SLC %s, %s", k.ID, k.SLC, fate), "  public key "+k.PublicKey.String())
		if k.KEK != nil {
			lines = append(lines, "  wrapped for the KEK "+k.KEK.String())
			if !slices.Contains(keks, *k.KEK) {
				keks = append(keks, *k.KEK)
			}
		}
		if len(k.Warnings) > 0 {
			lines = append(lines, "  recorded on the way: "+strings.Join(k.Warnings, ", "))
		}
	}
	for _, kek := range keks {
		lines = append(lines, "The KEK's fingerprint:", kek.Spoken())
	}
	return lines
}
