// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"fmt"
	"strings"
	"time"

	"keyferry/offline/internal/machine"
	"keyferry/offline/internal/sandbox"
	"keyferry/offline/internal/selftest"
	"keyferry/pkg/cli"
	"keyferry/pkg/control"
	"keyferry/pkg/harden"
	"keyferry/pkg/state"
)

// Process is what this process gave up before it read anything, and what it did not.
type Process struct {
	Needs          SandboxNeeds
	Held           sandbox.Held
	Memory         harden.Memory
	NetworkPresent bool // the person accepts a connected machine
}

// SandboxText says for people what holds, a line each.
func SandboxText(h sandbox.Held) string {
	if h.AppContainer != "" {
		reach := map[bool]string{false: "nothing", true: "this machine"}[h.Loopback]
		return fmt.Sprintf("AppContainer: %s, without capabilities; sockets reach %s, and files can be written only in %s", h.AppContainer, reach, strings.Join(h.Writable, ", "))
	}
	sockets := "sockets: of any kind can be opened"
	if h.OnlyUnixSockets {
		sockets = "sockets: none can be opened but unix ones (seccomp)"
	}
	files := "files: can be written wherever the user may"
	if h.LandlockABI > 0 {
		files = fmt.Sprintf("files: can be written only in %s (Landlock ABI %d)", strings.Join(h.Writable, ", "), h.LandlockABI)
	}
	if h.OnlyUnixSockets && h.AbstractSockets {
		sockets += ", unix sockets with abstract names among them"
	}
	if h.OnlyProcess {
		files += "\nprocesses: none can be started (job object)"
	}
	if h.Lacks != "" {
		files += "\nAppContainer: not to be had: " + h.Lacks
	}
	return sockets + "\n" + files
}

// SandboxNeeds are what an HSM needs of the sandbox. They come from the command
// line, and from init by way of the state directory.
type SandboxNeeds struct {
	Writes          string `json:"writes"`  // files, directories and devices, separated as in PATH
	Network         bool   `json:"network"` // network sockets
	AbstractSockets bool   `json:"abstract_sockets"`
	DLLDirs         string `json:"dll_dirs"` // where Windows looks for DLLs, too; separated as in PATH
}

// WarnOfSandbox says what is open that could be shut. It is said where a secret
// may meet it, and by doctor.
func (p *Process) WarnOfSandbox(io *cli.IO) {
	switch {
	case p.Needs.Network && p.Held.Loopback:
		io.Warn("loopback is left open to the HSM's module, by --unsafe-hsm-network")
	case p.Needs.Network && p.Held.Lacks != "":
		io.Warn("network sockets are left open to the HSM's module, by --unsafe-hsm-network; AppContainer: not to be had: %s", p.Held.Lacks)
	case p.Needs.Network:
		io.Warn("network sockets are left open to the HSM's module, by --unsafe-hsm-network")
	case !p.Held.Whole():
		io.Warn("this system lacks a part of the sandbox: %s; memory: %s", strings.ReplaceAll(SandboxText(p.Held), "\n", "; "), p.Memory)
	}
}

// surroundings are what a key is carried in: what the kernel holds the program
// to, and what is known of the machine.
type surroundings struct {
	Sandbox  sandbox.Held      `json:"sandbox"`
	Machine  []machine.Finding `json:"machine"`
	Memory   harden.Memory     `json:"memory"`
	Warnings []string          `json:"warnings"` // control IDs: overridden, or the system lacks it

	recorded bool
}

// preflight is what comes before every import and wrap, and before their
// secrets: it refuses a program that computes wrongly, and a machine that is
// connected; of that, a rehearsal with its own token is only warned.
func preflight(io *cli.IO, s *state.State, p *Process) (*surroundings, error) {
	if _, err := selftest.Run(); err != nil {
		return nil, err
	}
	around := &surroundings{Sandbox: p.Held, Machine: machine.Look(), Memory: p.Memory, Warnings: []string{}}
	p.WarnOfSandbox(io)
	if !around.Sandbox.Whole() {
		around.Warnings = append(around.Warnings, control.Sandbox.ID)
	}
	if around.Memory == harden.Swappable && around.Sandbox.Whole() { // else it was said
		io.Warn("memory is %s", around.Memory)
	}
	for _, f := range around.Machine {
		io.Detail("machine: %s", f.Text)
	}
	overridden, err := p.Tolerate(io, machine.Refuse(around.Machine), IsPractice(s))
	if err != nil {
		return nil, err
	}
	if overridden {
		around.Warnings = append(around.Warnings, control.Connected.ID)
	}
	return around, nil
}

// Tolerate makes a warning of a connected machine where the operator overrides
// the refusal, or in a rehearsal.
func (p *Process) Tolerate(io *cli.IO, connected error, practice bool) (overridden bool, err error) {
	switch {
	case connected == nil:
	case p.NetworkPresent:
		io.Warn("%v; accepted by --unsafe-network-present", connected)
		return true, nil
	case practice:
		io.Warn("%v; a real ceremony would stop here", connected)
	default:
		return false, connected
	}
	return false, nil
}

// WarnOfNetwork says that a machine is connected where that stops nothing yet: before a
// PIN or a password is typed there.
func WarnOfNetwork(io *cli.IO) {
	if connected := machine.Refuse(machine.Look()); connected != nil {
		io.Warn("%v; an import would stop here", connected)
	}
}

// record tells the ledger, once, before the first change.
func (around *surroundings) record(s *state.State) error {
	if around.recorded {
		return nil
	}
	around.recorded = true
	return s.Ledger.Append(time.Now(), EventSurroundings, around)
}
