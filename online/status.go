// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"keyferry/bundle"
	"keyferry/online/internal/ceremony"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
	"keyferry/pkg/sheet"
	"keyferry/pkg/state"
)

var statusCommand = cli.Command{
	Name:    "status",
	Summary: "show pins, KEKs, bundles and keys that the ledger knows",
	Shows:   true,
	Usage: `
Usage: online status

Shows whom this side trusts, the KEKs that were packaged, the bundles whose
upload was begun, what became of each key, and what comes next.

Example: online status --json
`,
	Setup: func(*pflag.FlagSet) cli.Run {
		return func(_ context.Context, io *cli.IO, args []string) error {
			if err := io.NoArguments(args); err != nil {
				return err
			}
			return withJournal(io, func(s *state.State, j *ceremony.Journal) error {
				lines, doc, err := standing(io, s, j)
				if err != nil {
					return err
				}
				return result(io, s, nil, doc, strings.Join(lines, "\n")+"\n")
			})
		}
	},
}

// standing says where this side stands: who it is, whom it trusts, and in a block each, in
// 80 columns, the bundles and keys that it knows.
func standing(io *cli.IO, s *state.State, j *ceremony.Journal) (lines []string, doc map[string]any, err error) {
	w, world, err := ceremony.OwnWorld(s)
	if err != nil {
		return nil, nil, err
	}
	card, file, err := ceremony.PinnedCard(s)
	if err != nil && !control.Is(err, control.TrustNone) {
		return nil, nil, err
	}
	add := func(label, value string) { lines = append(lines, cli.Block(label, value)...) }
	lines = append(lines, fmt.Sprintf("%s (%s)", s.Name, s.Kind()))
	add("ledger", fmt.Sprintf("%d records, head", len(s.Ledger.Entries())))
	add("", s.Ledger.Head().String())
	add("", "in words: "+io.Line("online", "fingerprint", "ledger"))
	add("world", fmt.Sprintf("number %d, region %s, vault %s", w.Number, w.Region, w.Vault))
	add("", fingerprint.Of(world).String())
	add("approval", w.ApprovalRule())
	doc = map[string]any{"name": s.Name, "kind": s.Kind(), "card": nil, "world": fingerprint.Of(world), "threshold": w.Threshold, "approvers": w.Approvers}
	if card == nil {
		add("card", "no offline card is pinned")
	} else {
		add("card", "of "+card.Name+", pinned")
		add("", fingerprint.Of(file).String())
		doc["card"] = fingerprint.Of(file)
	}
	for _, k := range j.KEKs {
		add(fmt.Sprintf("KEK %d", k.Number), k.KID)
	}
	doc["keks"] = append([]ceremony.KEKPackaged{}, j.KEKs...)
	for _, a := range j.Bundles {
		lines = append(lines, "", fmt.Sprintf("Bundle %d", a.Sequence))
		lines = append(lines, cli.Block("keys", strings.Join(a.Keys, ", "))...)
		for _, who := range a.Approved {
			lines = append(lines, cli.Block("approved", "by "+sheet.Approver(who))...)
		}
		lines = append(lines, cli.Block("receipt", receiptNumber(j.LastReceipt(a.Manifest)))...)
	}
	keys := j.All()
	for _, k := range keys {
		lines = append(lines, "", "Key "+k.ID)
		lines = append(lines, cli.Block("vault", cmp.Or(k.KeyURL, "-"))...)
		lines = append(lines, cli.Block("tenant", cmp.Or(tenantOf(j, k), "-"))...)
		if k.Refused != "" {
			lines = append(lines, cli.Block("refused", k.Refused)...)
		}
	}
	doc["records"], doc["head"] = len(s.Ledger.Entries()), s.Ledger.Head()
	doc["bundles"], doc["keys"] = append([]ceremony.Accepted{}, j.Bundles...), keys
	return lines, doc, nil
}

// tenantOf says what is known of a key in the tenant.
func tenantOf(j *ceremony.Journal, k bundle.Arrived) string {
	for _, o := range j.Kits {
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
