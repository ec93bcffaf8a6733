// SPDX-License-Identifier: Apache-2.0

package main

import "golang.org/x/sys/windows"

// ownStdout is as on Linux: the C runtime of a module looks for its standard output
// when it is loaded, and this program has had its own before.
func ownStdout() (others, again func() error) {
	to := func(handle windows.Handle) func() error {
		return func() error { return windows.SetStdHandle(windows.STD_OUTPUT_HANDLE, handle) }
	}
	return to(windows.Stderr), to(windows.Stdout)
}
