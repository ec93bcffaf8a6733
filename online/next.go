// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"strings"

	"github.com/spf13/pflag"

	"keyferry/online/internal/ceremony"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/state"
)

var nextCommand = cli.Command{
	Name:    "next",
	Summary: "show where this side stands, and the next command",
	Shows:   true,
	Usage: `
Usage: online next

Shows what this side has, what is to be carried to the other side, and the next
command, whole: as it can be typed or copied. "online" without arguments does
the same, once there is a state directory.

Example: online next
`,
	Setup: func(*pflag.FlagSet) cli.Run {
		return func(_ context.Context, io *cli.IO, args []string) error {
			if err := io.NoArguments(args); err != nil {
				return err
			}
			err := withJournal(io, func(s *state.State, j *ceremony.Journal) error {
				lines, doc, err := standing(io, s, j)
				if err != nil {
					return err
				}
				stand, err := ceremony.Stand(s, j, nil)
				if err != nil {
					return err
				}
				if len(stand.Remains) > 0 {
					lines = append(lines, "", "What remains to be done in the tenant, once each:")
				}
				for _, line := range stand.Remains {
					lines = append(lines, "  "+line)
				}
				doc["remains"] = append([]string{}, stand.Remains...)
				return result(io, s, nil, doc, strings.Join(lines, "\n")+"\n")
			})
			if control.Is(err, control.StateMissing) {
				return io.ShowBeginning([]string{"init", "--rehearsal"}, []string{"init", "--vault-url", "https://VAULT.vault.azure.net"})
			}
			return err
		}
	},
}

// result prints what a command that ended well has done, and what comes next. The
// bundle in hand is nil where there is none.
func result(io *cli.IO, s *state.State, hand *ceremony.Received, doc map[string]any, text string) error {
	j, err := ceremony.ReadJournal(s.Ledger) // with what was just recorded
	if err != nil {
		return err
	}
	stand, err := ceremony.Stand(s, j, hand)
	if err != nil {
		return err
	}
	return io.ResultNext(doc, text, stand)
}
