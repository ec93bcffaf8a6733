// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"keyferry/bundle"
	"keyferry/online/internal/ceremony"
	"keyferry/pkg/cli"
	"keyferry/pkg/sheet"
	"keyferry/pkg/state"
)

var statusCommand = cli.Command{
	Name:    "status",
	Summary: "show KEKs, bundles and keys that the ledger knows",
	Shows:   true,
	Usage: `
Usage: online status

Shows the KEKs that were packaged, the bundles whose upload was begun, and what
became of each key.

Example: online status --json
`,
	Setup: func(*pflag.FlagSet) cli.Run {
		return func(_ context.Context, io *cli.IO, args []string) error {
			if err := io.NoArguments(args); err != nil {
				return err
			}
			return withState(io, func(s *state.State) error { return showStatus(io, s) })
		}
	},
}

func showStatus(io *cli.IO, s *state.State) error {
	h, err := ceremony.ReadJournal(s.Ledger)
	if err != nil {
		return err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s (%s), records in the ledger: %d, head %s\n", s.Name, s.Kind(), len(s.Ledger.Entries()), s.Ledger.Head())
	for _, k := range h.KEKs {
		fmt.Fprintf(&text, "KEK package %d: %s\n", k.Number, k.KID)
	}
	for _, a := range h.Bundles {
		fmt.Fprintf(&text, "bundle %d: %s, receipt %s\n", a.Sequence, strings.Join(a.Keys, ", "), receiptNumber(h.LastReceipt(a.Manifest)))
	}
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "KEY\tTENANT\tKEY URL\tREFUSED")
	keys := h.All()
	for _, k := range keys {
		control, _, _ := strings.Cut(k.Refused, ":")
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", k.ID, cmp.Or(tenantOf(h, k), "-"), cmp.Or(k.KeyURL, "-"), cmp.Or(control, "-"))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	return io.Result(map[string]any{
		"name": s.Name, "kind": s.Kind(), "records": len(s.Ledger.Entries()), "head": s.Ledger.Head(),
		"keks": append([]ceremony.KEKPackaged{}, h.KEKs...), "bundles": append([]ceremony.Accepted{}, h.Bundles...), "keys": keys,
	}, text.String())
}

// tenantOf says what is known of a key in the tenant.
func tenantOf(h *ceremony.Journal, k bundle.Arrived) string {
	for _, o := range h.Kits {
		if k.Tenant == "" && slices.ContainsFunc(o.Keys, func(key ceremony.HandedKey) bool { return key.ID == k.ID }) {
			return "handed over"
		}
	}
	return sheet.Tenant(k.Tenant, k.TenantBy)
}

func receiptNumber(a *ceremony.Answered) string {
	if a == nil {
		return "not yet given"
	}
	return fmt.Sprintf("number %d", a.Sequence)
}
