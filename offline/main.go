// SPDX-License-Identifier: Apache-2.0

package main

import "os"

// othersToStderr sends to the standard error what the HSM's module prints to the standard
// output, and stdoutAgain ends that.
var (
	othersToStderr = func() error { return nil }
	stdoutAgain    = othersToStderr
)

func main() {
	othersToStderr, stdoutAgain = ownStdout()
	os.Exit(newApp().Main())
}
