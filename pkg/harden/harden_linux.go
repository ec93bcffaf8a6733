// SPDX-License-Identifier: Apache-2.0

package harden

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Process forbids core dumps and the reading of this process's memory by other
// processes of the same user. It is called before the first secret is read.
func Process() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid core dumps (PR_SET_DUMPABLE): %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps (RLIMIT_CORE): %w", err)
	}
	return nil
}

// LockMemory keeps the process's memory, the C libraries' too, out of swap, as
// far as the system allows: a user who may lock some memory only is not helped,
// since a program in Go would fail at the first page beyond. It returns what
// came of it.
func LockMemory() Memory {
	var limit unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit)
	if err == nil && (limit.Cur == unix.RLIM_INFINITY || os.Geteuid() == 0) {
		// Pages are locked when they are used: Go reserves far more than it uses.
		if unix.Mlockall(unix.MCL_CURRENT|unix.MCL_FUTURE|unix.MCL_ONFAULT) == nil {
			return Locked
		}
	}
	// The first line is the head of the table; each other one is an area of swap.
	if areas, err := os.ReadFile("/proc/swaps"); err == nil && strings.Count(string(areas), "\n") <= 1 {
		return NoSwap
	}
	return Swappable
}
