// SPDX-License-Identifier: Apache-2.0

package harden

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/windows"
)

// What others may still do to this process: wait for it, see that it is there,
// end it. To read its memory is not among it.
const allowed = windows.SYNCHRONIZE | windows.PROCESS_QUERY_LIMITED_INFORMATION | windows.PROCESS_TERMINATE

// Process forbids other processes of the same user to read this one's memory, and
// the crash dialogue and the crash report with their dumps. The entry for OWNER
// RIGHTS takes from the owner the right that Windows gives by itself, to write
// another access list. No DLL is taken from the current directory or PATH, which
// may be on a stick. Nothing forbids dumps that an administrator has set up
// (LocalDumps), nor keeps out an administrator with the right to debug. It is
// called before the first secret is read; another call does nothing.
func Process() error {
	if hardened {
		return nil
	}
	if err := windows.SetDefaultDllDirectories(windows.LOAD_LIBRARY_SEARCH_SYSTEM32 | windows.LOAD_LIBRARY_SEARCH_USER_DIRS); err != nil {
		return fmt.Errorf("forbid DLLs from elsewhere: %w", err)
	}
	windows.SetErrorMode(windows.SEM_FAILCRITICALERRORS | windows.SEM_NOGPFAULTERRORBOX)
	access, err := windows.SecurityDescriptorFromString(fmt.Sprintf("D:P(A;;%#x;;;OW)(A;;%#x;;;WD)", windows.READ_CONTROL, allowed))
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
	// Neither other programs' hooks nor images from shares are loaded.
	policies := []struct{ policy, flags uint32 }{
		{6, 1},      // ProcessExtensionPointDisablePolicy
		{10, 1 | 4}, // ProcessImageLoadPolicy: NoRemoteImages, PreferSystem32Images
	}
	for _, p := range policies {
		if ok, _, err := windows.NewLazySystemDLL("kernel32.dll").NewProc("SetProcessMitigationPolicy").Call(uintptr(p.policy), uintptr(unsafe.Pointer(&p.flags)), 4); ok == 0 {
			return fmt.Errorf("set mitigation policy %d: %w", p.policy, err)
		}
	}
	// Of no memory of this process, error reporting makes a dump. It answers where
	// its service runs; where it does not, there is no report.
	const noHeap, noUI = 0x1, 0x20 // WER_FAULT_REPORTING_FLAG_NOHEAP, WER_FAULT_REPORTING_NO_UI
	if set := windows.NewLazySystemDLL("kernel32.dll").NewProc("WerSetFlags"); set.Find() == nil {
		set.Call(noHeap | noUI)
	}
	hardened = true
	return nil
}

var hardened bool

// LockMemory can't keep all memory out of the page file here: Windows locks
// single pages. It lets the process keep what it uses, so that pages leave memory
// only when the machine has none left.
func LockMemory() Memory {
	const keep, most = 64 << 20, 256 << 20
	windows.SetProcessWorkingSetSizeEx(windows.CurrentProcess(), keep, most, 0) // what comes of it is no promise
	return Swappable
}
