// SPDX-License-Identifier: Apache-2.0

package sandbox

import "golang.org/x/sys/unix"

const (
	auditArch      = unix.AUDIT_ARCH_AARCH64
	foreignNumbers = 0x40000000 // from here on: no call of Linux
)

// archCalls are refused calls that only this architecture has: none.
var archCalls = []uint32{}
