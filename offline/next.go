// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/spf13/pflag"

	"keyferry/offline/internal/ceremony"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/state"
	"keyferry/pkg/trust"
)

// beginning is how the real ceremony begins.
var beginning = []string{"init", "--hsm-module", "MODULE", "--hsm-token", "LABEL", "--out", "DIR"}

var nextCommand = cli.Command{
	Name:    "next",
	Summary: "show where this side stands, and the next command",
	Shows:   true,
	Usage: `
Usage: offline next

Shows where this side stands: its pins, its keys, approvals, and what waits for
the other side; then what to carry, and the next command, whole: as it can be
typed or copied. Words in capitals, such as TPD and ID, stand for what only you
know. "offline" without arguments does the same, once there is a state
directory.

Example: offline next --rehearsal
`,
	Setup: func(*pflag.FlagSet) cli.Run {
		return func(_ context.Context, io *cli.IO, args []string) error {
			if err := io.NoArguments(args); err != nil {
				return err
			}
			err := withState(io, func(s *state.State) error { return showStatus(io, s) })
			if control.Is(err, control.StateMissing) {
				return io.ShowBeginning([]string{"init", "--rehearsal", "--out", "DIR"}, beginning)
			}
			return err
		}
	},
}

// result prints what a command that ended well has done, and what comes next.
func result(io *cli.IO, s *state.State, doc map[string]any, text string) error {
	stand, err := standing(s, "")
	if err != nil {
		return err
	}
	return io.ResultNext(doc, text, stand)
}

// standing is where this side stands, with what was just recorded. The KEK package in
// hand may be unknown to the ledger yet; without one it is empty.
func standing(s *state.State, kek string) (*cli.Standing, error) {
	j, err := ceremony.ReadJournal(s.Ledger)
	if err != nil {
		return nil, err
	}
	w, _, err := ceremony.PinnedWorld(s)
	if err != nil && !control.Is(err, control.TrustNone) {
		return nil, err
	}
	return ceremony.Stand(s, j, w, s.Path(trust.CardName(s.Name)), kek), nil
}
