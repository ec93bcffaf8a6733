// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"

	"keyferry/online/internal/ceremony"
	"keyferry/pkg/cli"
	"keyferry/pkg/state"
)

var receiptCommand = cli.Command{
	Name:    "receipt",
	Summary: "seal the answer: what became of each key",
	Usage: `
Usage: online receipt BUNDLE --out DIR

Seals a receipt for a bundle whose upload was begun: what became of each key,
signed by this side, encrypted to the offline side. Asked again, it writes the
same receipt again, unless something has changed or another one was sealed
since.

  --out DIR         where to write the receipt

Example: online receipt keyferry-vault-room-1.kfb --out /media/stick
`,
	Setup: func(flags *pflag.FlagSet) cli.Run {
		out := flags.String("out", "", "")
		return func(_ context.Context, io *cli.IO, args []string) error {
			path, err := io.OneArgument(args, "bundle")
			if err != nil {
				return err
			}
			if err := cli.Require(flags, "out"); err != nil {
				return err
			}
			return withBundle(io, path, false, func(s *state.State, j *ceremony.Journal, r *ceremony.Received) error {
				sealed, err := ceremony.Receipt(io, s, j, r, *out)
				if err != nil {
					return err
				}
				text := fmt.Sprintf("Receipt: %s\n%s", sealed.Path, io.Delivered(sealed.Path))
				if sealed.Again {
					text += "\nIt was sealed before: nothing has changed since."
				}
				return result(io, s, r, map[string]any{"receipt": sealed.Path, "answers": r.Digest, "keys": sealed.Keys, "again": sealed.Again}, text)
			})
		}
	},
}
