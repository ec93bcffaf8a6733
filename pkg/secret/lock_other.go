// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package secret

// LockMemory can't keep memory out of swap on this system.
func LockMemory() Memory { return Swappable }
