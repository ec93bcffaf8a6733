// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"syscall"
)

// ownStdout keeps the standard output for this program: some modules print to it,
// which would spoil a JSON document. It is called first of all; the function that it
// returns then sends what others print there to the standard error.
func ownStdout() (others func() error) {
	fd, err := syscall.Dup(syscall.Stdout)
	if err != nil { // there is none
		return func() error { return nil }
	}
	syscall.CloseOnExec(fd)
	os.Stdout = os.NewFile(uintptr(fd), os.Stdout.Name())
	return func() error { return syscall.Dup3(syscall.Stderr, syscall.Stdout, 0) }
}
