// SPDX-License-Identifier: Apache-2.0

package secret

import "runtime"

// Sweep erases, in a program whose toolchain has runtime/secret ([Erases]), what
// was allocated under [Do] and is not in use any more. Two rounds of garbage
// collection: pools, such as math/big has, let go at the second.
func Sweep() {
	if Erases {
		runtime.GC()
		runtime.GC()
	}
}

// Memory says whether what is in memory may reach a disk.
type Memory string

const (
	Locked    Memory = "locked: none of it is swapped out"
	NoSwap    Memory = "not locked, but this machine has no swap"
	Swappable Memory = "not locked: it may be swapped out to a disk"
)
