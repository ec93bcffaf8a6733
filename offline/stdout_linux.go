// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"syscall"
)

// ownStdout keeps the standard output for this program: some modules print to it,
// which would spoil a JSON document. It is called first of all; the functions that it
// returns then send what others print there to the standard error, and no longer.
func ownStdout() (others, again func() error) {
	fd, err := syscall.Dup(syscall.Stdout)
	if err != nil { // there is none
		nothing := func() error { return nil }
		return nothing, nothing
	}
	syscall.CloseOnExec(fd)
	os.Stdout = os.NewFile(uintptr(fd), os.Stdout.Name())
	to := func(fd int) func() error {
		return func() error { return syscall.Dup3(fd, syscall.Stdout, 0) }
	}
	return to(syscall.Stderr), to(fd)
}
