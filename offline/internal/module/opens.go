// SPDX-License-Identifier: Apache-2.0

package module

// Need is something that was opened that the sandbox forbids, and the flag that allows
// it there: with a place to write, of [WritesFlag].
type Need struct{ What, Flag, Place string }

// The flags that open the sandbox to a module.
const (
	NetworkFlag  = "--unsafe-hsm-network"
	AbstractFlag = "--hsm-abstract-sockets"
	WritesFlag   = "--hsm-writes"
)
