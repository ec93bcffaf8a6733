// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"unsafe"

	"golang.org/x/sys/windows"
)

// Enter forbids child processes, by a job object that this process alone is in.
// Sockets and files stay open to the HSM's module: to shut them, the program would
// have to run in an AppContainer, with its parent handing over each file.
func Enter(Limits) (Held, error) {
	job, err := windows.CreateJobObject(nil, nil) // open as long as the process is
	if err == nil {
		limits := windows.JOBOBJECT_BASIC_LIMIT_INFORMATION{LimitFlags: windows.JOB_OBJECT_LIMIT_ACTIVE_PROCESS, ActiveProcessLimit: 1}
		_, err = windows.SetInformationJobObject(job, windows.JobObjectBasicLimitInformation, uintptr(unsafe.Pointer(&limits)), uint32(unsafe.Sizeof(limits)))
	}
	if err == nil {
		err = windows.AssignProcessToJobObject(job, windows.CurrentProcess())
	}
	return Held{OnlyProcess: err == nil}, nil // a job with limits of its interface, which a parent may have set, forbids that
}
