// SPDX-License-Identifier: Apache-2.0

package main

import "os"

// othersToStderr sends to the standard error what the HSM's module prints to the standard output.
var othersToStderr = func() error { return nil }

func main() {
	othersToStderr = ownStdout()
	os.Exit(newApp().Main())
}
