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
	"keyferry/pkg/state"
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
			return withState(io, func(s *state.State) error {
				taken, err := ceremony.TakeReceipt(io, s, path)
				if err != nil {
					return err
				}
				doc := map[string]any{"answers": taken.Answers, "keys": taken.Keys, "again": taken.Again, "sequence": taken.Sequence, "newest_receipt": taken.Newest}
				return result(io, s, doc, describeReceipt(taken))
			})
		}
	},
}

func describeReceipt(r *ceremony.ReceiptResult) string {
	var lines []string
	switch {
	case r.Newest > r.Sequence:
		lines = append(lines, fmt.Sprintf("This receipt, number %d, is an old one: number %d, for the same bundle, was taken since.", r.Sequence, r.Newest), "It says what was known when it was sealed:")
	case r.Again:
		lines = append(lines, fmt.Sprintf("This receipt, number %d, was taken before: nothing was changed.", r.Sequence))
	}
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
	if r.Newest > r.Sequence {
		return strings.Join(append(lines, "Nothing was changed; `offline status` shows what is known now."), "\n")
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
