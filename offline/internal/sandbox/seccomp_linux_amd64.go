// SPDX-License-Identifier: Apache-2.0

package sandbox

import "golang.org/x/sys/unix"

const (
	auditArch      = unix.AUDIT_ARCH_X86_64
	foreignNumbers = 0x40000000 // from here on: __X32_SYSCALL_BIT
)

// archCalls are refused calls that only this architecture has: the ports of the machine.
var archCalls = []uint32{unix.SYS_IOPL, unix.SYS_IOPERM}
