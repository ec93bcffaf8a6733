// SPDX-License-Identifier: Apache-2.0

package control

var airgapControls []Control

func airgap(id string, class Class, hint string) Control {
	return register(&airgapControls, Control{id, class, hint})
}

// Controls of the air gap: what the disconnected side's program and machine
// must not do, and that it computes right.
var (
	Sandbox   = airgap("KF-AIRGAP-SANDBOX", Environment, "run the program itself, not inside another sandbox that forbids Landlock or seccomp; name the directories that the HSM's module writes to with --hsm-writes")
	Connected = airgap("KF-AIRGAP-CONNECTED", Environment, "pull the cables, switch the radios off ('rfkill block all'), take tunnels and routes down; what must stay as it is can be accepted with --unsafe-network-present, which ledger and bundle record")
	SelfTest  = airgap("KF-SELFTEST-ANSWER", Environment, "do not use this machine or this copy of the program: compare the program's SHA-256, and try another machine")
)
