// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"keyferry/offline/internal/ceremony"
	"keyferry/pkg/cli"
	"keyferry/pkg/state"
	"keyferry/pkg/trust"
)

func sealCommand(p *process) cli.Command {
	return cli.Command{
		Name:    "seal",
		Summary: "seal the outbox into one bundle on the stick",
		Usage: `
Usage: offline seal --out DIR [flags]

Seals all staged keys into the bundle keyferry-<name>-<number>.kfb in DIR:
signed by this side, encrypted to the pinned connected side. The copy on the
stick is read back and compared. The outbox is empty afterwards; a copy of the
bundle stays in the state directory. Where nothing is staged, the last bundle is
written once more, byte for byte.

Where the security world asks for approvals, the bundle stays in the state
directory at first, and only a request leaves:
keyferry-<name>-<number>.request.json, the manifest that approvers read and
sign. "offline approve" attaches their signatures. Once there are enough, the
same command writes the bundle.

  --out DIR            where to write the bundle, or the request
  --hsm-pin-file PATH  the HSM's PIN, where it signs (or --hsm-pin-fd N)
  --hsm-so-pin-file PATH
                       the secret of its administrator, of an HSM that wants it
                       (or --hsm-so-pin-fd N)

Example: offline seal --out /media/stick
`,
		Setup: func(flags *pflag.FlagSet) cli.Run {
			var r ceremony.SealRequest
			flags.StringVar(&r.Out, "out", "", "")
			r.Access = addAccess(flags, p)
			return func(ctx context.Context, io *cli.IO, args []string) error {
				if err := errors.Join(io.NoArguments(args), cli.Require(flags, "out")); err != nil {
					return err
				}
				return withState(io, func(s *state.State) error {
					done, err := ceremony.Seal(ctx, io, s, r)
					if err != nil {
						return err
					}
					return reportSealed(io, s, done)
				})
			}
		},
	}
}

// reportSealed says what was sealed, and what has left.
func reportSealed(io *cli.IO, s *state.State, done *ceremony.SealResult) error {
	doc := map[string]any{
		"id": done.Bundle, "sequence": done.Sequence, "manifest": done.Manifest, "keys": done.Keys, "held_back": done.HeldBack,
		"threshold": done.World.Threshold, "approved_by": append([]trust.Approver{}, done.Approved...), "again": done.Again,
	}
	keys := strings.Join(done.Keys, ", ")
	var lines []string
	switch {
	case done.HeldBack:
		doc["request"] = done.Path
		lines = []string{fmt.Sprintf("Request for approvals: %s, for the bundle with %s, which stays here until enough have approved it", done.Path, keys)}
	case done.Again:
		doc["bundle"] = done.Path
		lines = []string{fmt.Sprintf("Sealed before, and written now: %s, with %s", done.Path, keys)}
	default:
		doc["bundle"] = done.Path
		lines = []string{fmt.Sprintf("Sealed: %s, with %s", done.Path, keys)}
	}
	lines = append(lines, "The manifest's fingerprint:", done.Manifest.Spoken())
	for _, a := range done.Approved {
		lines = append(lines, "Approved by "+a.String())
	}
	if done.HeldBack {
		lines = append(lines, done.World.ApprovalRule())
	}
	return result(io, s, doc, strings.Join(append(lines, io.Delivered(done.Path)), "\n"))
}
