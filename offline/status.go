// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"keyferry/pkg/cli"
	"keyferry/pkg/state"
)

var statusCommand = cli.Command{
	Name:    "status",
	Summary: "show each key on its way, from TPD to key URL",
	Usage: `
Usage: offline status

Shows each key that the ledger knows: begun (a run was stopped while it changed
the token: run the same import again), staged, sealed, arrived, or refused.

Example: offline status --json
`,
	Setup: func(*pflag.FlagSet) cli.Run {
		return func(_ context.Context, io *cli.IO, args []string) error {
			if err := cli.NoArguments(args); err != nil {
				return err
			}
			return withState(io, func(s *state.State) error { return showStatus(io, s) })
		}
	},
}

func showStatus(io *cli.IO, s *state.State) error {
	h, err := readHistory(s.Ledger)
	if err != nil {
		return err
	}
	keys := append([]*keyState{}, h.keys...)
	var text strings.Builder
	fmt.Fprintf(&text, "%s (%s), %d records in the ledger, head %s\n", s.Name, s.Kind(), len(s.Ledger.Entries()), s.Ledger.Head())
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "KEY\tSTAGE\tSLC\tBUNDLE\tTENANT\tKEY URL")
	for _, k := range keys {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, k.Stage, dash(k.SLC), dash(number(k.Bundle)), dash(k.Tenant), dash(k.KeyURL))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	doc := map[string]any{"name": s.Name, "kind": s.Kind(), "records": len(s.Ledger.Entries()), "head": s.Ledger.Head(), "keys": keys}
	return io.Result(doc, text.String())
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func number(n uint64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

var transcriptCommand = cli.Command{
	Name:    "transcript",
	Summary: "show the ledger, record by record",
	Usage: `
Usage: offline transcript

Shows the ledger: what was done when, in the chain of hashes that was checked
when it was opened.

Example: offline transcript
`,
	Setup: func(*pflag.FlagSet) cli.Run {
		return func(_ context.Context, io *cli.IO, args []string) error {
			if err := cli.NoArguments(args); err != nil {
				return err
			}
			return withState(io, func(s *state.State) error { return showTranscript(io, s) })
		}
	},
}

var transcriptVerifyCommand = cli.Command{
	Name:    "transcript verify",
	Summary: "check the ledger's chain of hashes",
	Usage: `
Usage: offline transcript verify

Checks that each record of the ledger follows the one before it, and shows the
head, which stands for all of it: compare it with the one that was written down.
A last record that was cut off or replaced shows in the head alone.

Example: offline transcript verify
`,
	Setup: func(*pflag.FlagSet) cli.Run {
		return func(_ context.Context, io *cli.IO, args []string) error {
			if err := cli.NoArguments(args); err != nil {
				return err
			}
			return withState(io, func(s *state.State) error { // which checks the chain
				head, records := s.Ledger.Head(), len(s.Ledger.Entries())
				return io.Result(map[string]any{"result": "SUCCESS", "records": records, "head": head},
					fmt.Sprintf("%d records follow each other\nhead  %s\n%s\nResult: SUCCESS", records, head, head.Words()))
			})
		}
	},
}

func showTranscript(io *cli.IO, s *state.State) error {
	var text strings.Builder
	for _, e := range s.Ledger.Entries() {
		fmt.Fprintf(&text, "%4d  %s  %-14s %s\n", e.Seq, e.Time.Format(time.RFC3339), e.Event, e.Data)
	}
	fmt.Fprintf(&text, "head  %s\n%s", s.Ledger.Head(), s.Ledger.Head().Words())
	return io.Result(map[string]any{"entries": s.Ledger.Entries(), "head": s.Ledger.Head()}, text.String())
}
