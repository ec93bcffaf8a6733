// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"

	"keyferry/offline/internal/ceremony"
	"keyferry/offline/internal/machine"
	"keyferry/offline/internal/sandbox"
	"keyferry/offline/internal/selftest"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/secret"
	"keyferry/pkg/state"
)

// surroundings are what a key is carried in: what the kernel holds the program
// to, and what is known of the machine.
type surroundings struct {
	Sandbox  sandbox.Held      `json:"sandbox"`
	Machine  []machine.Finding `json:"machine"`
	Memory   secret.Memory     `json:"memory"`
	Warnings []string          `json:"warnings"` // control IDs: overridden, or the system lacks it

	recorded bool
}

// preflight is what comes before every import and wrap, and before their
// secrets: it refuses a program that computes wrongly, and a machine that is
// connected; of that, a rehearsal with its own token is only warned.
func preflight(io *cli.IO, s *state.State) (*surroundings, error) {
	if _, err := selftest.Run(); err != nil {
		return nil, err
	}
	around := &surroundings{Sandbox: process.held, Machine: machine.Look(), Memory: process.memory, Warnings: []string{}}
	warnOfSandbox(io)
	if !around.Sandbox.Whole() {
		around.Warnings = append(around.Warnings, control.Sandbox.ID)
	}
	if around.Memory == secret.Swappable {
		io.Warn("memory is %s", around.Memory)
	}
	for _, f := range around.Machine {
		io.Detail("machine: %s", f.Text)
	}
	overridden, err := tolerate(io, machine.Refuse(around.Machine), isPractice(s))
	if err != nil {
		return nil, err
	}
	if overridden {
		around.Warnings = append(around.Warnings, control.Connected.ID)
	}
	return around, nil
}

// tolerate makes a warning of a connected machine where the operator overrides
// the refusal, or in a rehearsal.
func tolerate(io *cli.IO, connected error, practice bool) (overridden bool, err error) {
	switch {
	case connected == nil:
	case process.networkPresent:
		io.Warn("%v; accepted by --unsafe-network-present", connected)
		return true, nil
	case practice:
		io.Warn("%v; a real ceremony would stop here", connected)
	default:
		return false, connected
	}
	return false, nil
}

// record tells the ledger, once, before the first change.
func (around *surroundings) record(s *state.State) error {
	if around.recorded {
		return nil
	}
	around.recorded = true
	return s.Ledger.Append(time.Now(), ceremony.EventSurroundings, around)
}
