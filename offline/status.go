// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"keyferry/offline/internal/ceremony"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/sheet"
	"keyferry/pkg/state"
	"keyferry/pkg/trust"
)

var statusCommand = cli.Command{
	Name:    "status",
	Summary: "show each key on its way, from TPD to key URL",
	Shows:   true,
	Usage: `
Usage: offline status

Shows each key that the ledger knows: begun (a run was stopped while it changed
the token: run the same import again), wrapped (in the outbox, but not yet made
non-extractable in the token: run the same wrap again), staged, sealed, arrived,
or refused.

Example: offline status --json
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
	keys := append([]*ceremony.Key{}, h.Keys...)
	var text strings.Builder
	fmt.Fprintf(&text, "%s (%s), records in the ledger: %d, head %s\n", s.Name, s.Kind(), len(s.Ledger.Entries()), s.Ledger.Head())
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "KEY\tSTAGE\tSLC\tBUNDLE\tTENANT\tKEY URL")
	for _, k := range keys {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, k.Stage, dash(k.SLC), dash(number(k.Bundle)), dash(sheet.Tenant(k.Tenant, k.TenantBy)), dash(k.KeyURL))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	bundles := []map[string]any{}
	w, _, err := pinnedWorld(s)
	if control.Is(err, control.TrustNone) {
		w, err = &trust.World{}, nil
	}
	if err != nil {
		return err
	}
	threshold := w.Threshold
	for _, b := range h.Bundles {
		who := w.Who(keysOf(h.Approvers(b))) // those who count under the security world that is pinned now
		bundles = append(bundles, map[string]any{"sequence": b.Sequence, "manifest": b.Manifest, "keys": b.Keys, "held_back": b.HeldBack, "approved_by": who, "threshold": threshold})
		if threshold == 0 && len(who) == 0 {
			continue
		}
		fmt.Fprintf(&text, "bundle %d: approvals: %d of %d", b.Sequence, len(who), threshold)
		if b.HeldBack {
			text.WriteString(", held back")
		}
		text.WriteString("\n")
		for _, a := range who {
			fmt.Fprintf(&text, "  approved by %s\n", a)
		}
	}
	doc := map[string]any{"bundles": bundles, "threshold": threshold, "name": s.Name, "kind": s.Kind(), "records": len(s.Ledger.Entries()), "head": s.Ledger.Head(), "keys": keys}
	return io.Result(doc, text.String())
}

func dash(s string) string { return cmp.Or(s, "-") }

func number(n uint64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

// transcript shows the ledger.
var transcript = cli.Transcript{Program: "offline", InState: withState, Sheet: makeSheet}
