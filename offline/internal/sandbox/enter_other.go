// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package sandbox

// Enter can't shut the process in on this system: nothing holds.
func Enter(Limits) (Held, error) { return Held{}, nil }
