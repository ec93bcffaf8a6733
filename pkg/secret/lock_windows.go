// SPDX-License-Identifier: Apache-2.0

package secret

import "golang.org/x/sys/windows"

// LockMemory can't keep all memory out of the page file here: Windows locks
// single pages. It lets the process keep what it uses, so that pages leave memory
// only when the machine has none left.
func LockMemory() Memory {
	const keep, most = 64 << 20, 256 << 20
	windows.SetProcessWorkingSetSizeEx(windows.CurrentProcess(), keep, most, 0) // what comes of it is no promise
	return Swappable
}
