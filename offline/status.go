// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"keyferry/offline/internal/ceremony"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/fingerprint"
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

Shows this side's pins and, in a block each, the keys and bundles that the
ledger knows, and what comes next. A key is begun (a run was stopped while it
changed the token: run the same import again), wrapped (in the outbox, but not
yet made non-extractable in the token: run the same wrap again), staged, sealed,
arrived, or refused.

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
	text, doc, err := describeState(io, s)
	if err != nil {
		return err
	}
	return result(io, s, doc, text)
}

// describeState says where this side stands: its pins, each key in a block of its
// own, and its bundles, in 80 columns.
func describeState(io *cli.IO, s *state.State) (string, map[string]any, error) {
	h, err := ceremony.ReadJournal(s.Ledger)
	if err != nil {
		return "", nil, err
	}
	w, pin, err := ceremony.PinnedWorld(s)
	if control.Is(err, control.TrustNone) {
		w, err = nil, nil
	}
	if err != nil {
		return "", nil, err
	}
	_, file, err := ceremony.OwnCard(s)
	if err != nil {
		return "", nil, err
	}
	lines := []string{fmt.Sprintf("%s (%s)", s.Name, s.Kind())}
	line := func(label, value string) {
		if value != "" {
			lines = append(lines, cli.Block(label, value)...)
		}
	}
	title := func(text string) { lines = append(lines, "", text) }
	line("state", s.Dir)
	line("ledger", fmt.Sprintf("%d records, head", len(s.Ledger.Entries())))
	line("", s.Ledger.Head().String())
	line("", "in words: "+io.Line("offline", "fingerprint", "ledger"))
	line("card", fingerprint.Of(file).String())
	doc := map[string]any{"name": s.Name, "kind": s.Kind(), "records": len(s.Ledger.Entries()), "head": s.Ledger.Head(), "card": fingerprint.Of(file), "world": nil, "threshold": 0}
	if w == nil {
		line("world", "no security world is pinned")
		w = &trust.World{}
	} else {
		line("world", fmt.Sprintf("of %s, number %d, region %s, vault %s", w.Name, w.Number, w.Region, w.Vault))
		line("", pin.String())
		line("approval", w.ApprovalRule())
		doc["world"], doc["threshold"] = worldDoc(w, pin), w.Threshold
	}
	for _, k := range h.Keys {
		title("Key " + k.ID)
		line("stage", stageText(k))
		line("SLC", k.SLC)
		line("public", k.Key.String())
		line("KEK", k.KEK)
		line("wrapped", k.WrappedBy)
		if k.Bundle > 0 {
			line("bundle", fmt.Sprint(k.Bundle))
		}
		line("vault", k.KeyURL)
		line("tenant", sheet.Tenant(k.Tenant, k.TenantBy))
		if k.Answer != nil {
			line("refused", k.Answer.Refused)
		}
	}
	bundles := []map[string]any{}
	for _, b := range h.Bundles {
		who := w.Who(ceremony.ApproverKeys(h.Approvers(b))) // those who count under the security world that is pinned now
		bundles = append(bundles, map[string]any{"sequence": b.Sequence, "manifest": b.Manifest, "keys": b.Keys, "held_back": b.HeldBack, "approved_by": who, "threshold": w.Threshold})
		title(fmt.Sprintf("Bundle %d", b.Sequence))
		if b.HeldBack {
			line("stage", "held back until it is approved")
		}
		line("manifest", b.Manifest.String())
		line("keys", strings.Join(b.Keys, ", "))
		if w.Threshold > 0 || len(who) > 0 {
			line("approved", fmt.Sprintf("by %d of %d", len(who), w.Threshold))
		}
		for _, a := range who {
			line("", a.String())
		}
	}
	doc["bundles"], doc["keys"] = bundles, append([]*ceremony.Key{}, h.Keys...)
	return strings.Join(append(lines, "", ""), "\n"), doc, nil
}

// stageText says of a key how far it is.
func stageText(k *ceremony.Key) string {
	says := map[ceremony.Stage]string{
		ceremony.Begun: "its import was stopped: run it again", ceremony.Wrapped: "its wrap was stopped: run it again",
		ceremony.Staged: "in the outbox", ceremony.InBundle: "no receipt yet", ceremony.Arrived: "the receipt says so", ceremony.Returned: "did not arrive",
	}[k.Stage]
	return fmt.Sprintf("%s (%s)", k.Stage, says)
}

// transcript shows the ledger.
var transcript = cli.Transcript{Side: side, Sheet: makeSheet}
