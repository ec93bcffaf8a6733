// SPDX-License-Identifier: Apache-2.0

package tenant

import (
	"os/exec"
	"syscall"
)

// startBound starts a process that the kernel kills when the thread that
// started it ends, and so with this process. What it returns is to be called
// once the process has ended.
func startBound(cmd *exec.Cmd) (release func() error, err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return func() error { return nil }, cmd.Start()
}
