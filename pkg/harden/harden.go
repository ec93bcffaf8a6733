// SPDX-License-Identifier: Apache-2.0

// Package harden keeps what is in this process's memory from other processes and from
// disks, as far as the system lets it. It sees no secret itself.
package harden

import "os"

// OverwriteFreed has glibc overwrite all that is freed, from the next execve on: so
// a PKCS#11 module's copies of a key do not outlive their use. 255 makes
// what malloc gives zeros. What glibc keeps in its caches by thread it does
// not overwrite: there are none then.
func OverwriteFreed() error {
	const name = "GLIBC_TUNABLES"
	tunables := "glibc.malloc.perturb=255:glibc.malloc.tcache_count=0"
	if others := os.Getenv(name); others != "" {
		tunables = others + ":" + tunables
	}
	return os.Setenv(name, tunables)
}

// Memory says whether what is in memory may reach a disk.
type Memory string

const (
	Locked    Memory = "locked: none of it is swapped out"
	NoSwap    Memory = "not locked, but this machine has no swap"
	Swappable Memory = "not locked: it may be swapped out to a disk"
)
