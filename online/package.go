// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"keyferry/online/internal/ceremony"
	"keyferry/pkg/cli"
	"keyferry/pkg/durable"
	"keyferry/pkg/state"
)

var packageCommand = cli.Command{
	Name:    "package",
	Summary: "write the .byok and TPD files, for other tools",
	Usage: `
Usage: online package BUNDLE --out DIR

Checks a bundle as "online verify" does and writes, for each key in it,
KeyTransferPackage-<id>.byok and no_key_tpd_<id>.xml to DIR, and the keyless
TPD's one_time_password_<id>.txt if it has one: all of them, or none. Their
digests are recorded, so that "online import-tpd" knows them again. "online
upload" does not need them.

Of a key of 1024 bits, to be Microsoft-managed, it writes tpd_with_key_<id>.xml
alone: whoever has that file and the export's password has the key. Delete it
once it is in the tenant.

  --out DIR         where to write
  --out-of-order    as in online verify

Example: online package keyferry-vault-room-1.kfb --out transfer
`,
	Setup: func(flags *pflag.FlagSet) cli.Run {
		out, outOfOrder := flags.String("out", "", ""), addOutOfOrder(flags)
		return func(_ context.Context, io *cli.IO, args []string) error {
			path, err := io.OneArgument(args, "bundle")
			if err != nil {
				return err
			}
			if err := cli.Require(flags, "out"); err != nil {
				return err
			}
			if err := durable.CheckDir(*out); err != nil {
				return err
			}
			return withBundle(io, path, *outOfOrder, func(s *state.State, j *ceremony.Journal, r *ceremony.Received) error {
				written, err := ceremony.Package(j, r, *out)
				if err != nil {
					return err
				}
				withKey := []string{}
				for _, id := range slices.Sorted(maps.Keys(written.WithKey)) {
					ceremony.WarnOfKeyIn(io, written.WithKey[id], id)
					withKey = append(withKey, written.WithKey[id])
				}
				return result(io, s, r, map[string]any{"files": written.Files, "files_with_key": withKey}, "Written:\n"+strings.Join(written.Files, "\n"))
			})
		}
	},
}
