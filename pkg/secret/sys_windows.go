// SPDX-License-Identifier: Apache-2.0

package secret

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

// What others may still do to this process: wait for it, see that it is there,
// end it. To read its memory is not among it.
const allowed = windows.SYNCHRONIZE | windows.PROCESS_QUERY_LIMITED_INFORMATION | windows.PROCESS_TERMINATE

// Harden forbids the reading of this process's memory by other processes of the
// same user, and the crash dialogue that offers a dump. Windows has no way to
// forbid dumps that an administrator has set up (LocalDumps), nor to keep out an
// administrator with the right to debug. It is called before the first secret
// is read.
func Harden() error {
	windows.SetErrorMode(windows.SEM_FAILCRITICALERRORS | windows.SEM_NOGPFAULTERRORBOX)
	access, err := windows.SecurityDescriptorFromString(fmt.Sprintf("D:P(A;;%#x;;;WD)", allowed))
	if err != nil {
		return fmt.Errorf("forbid the reading of memory: %w", err)
	}
	list, _, err := access.DACL()
	if err != nil {
		return fmt.Errorf("forbid the reading of memory: %w", err)
	}
	err = windows.SetSecurityInfo(windows.CurrentProcess(), windows.SE_KERNEL_OBJECT,
		windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, list, nil)
	if err != nil {
		return fmt.Errorf("forbid the reading of memory: %w", err)
	}
	return nil
}

// openTerminal opens the console that the process was started from.
func openTerminal() (terminal, error) {
	in, err := os.OpenFile("CONIN$", os.O_RDWR, 0)
	if err != nil {
		return terminal{}, err
	}
	out, err := os.OpenFile("CONOUT$", os.O_RDWR, 0)
	if err != nil {
		return terminal{}, errors.Join(err, in.Close())
	}
	return terminal{in, out}, nil
}

// silence turns off the console's echo.
func silence(console *os.File) error {
	var mode uint32
	if err := windows.GetConsoleMode(windows.Handle(console.Fd()), &mode); err != nil {
		return err
	}
	return windows.SetConsoleMode(windows.Handle(console.Fd()), mode&^windows.ENABLE_ECHO_INPUT)
}

// inherited is not known of a handle here.
func inherited(uint) bool { return true }
