// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/windows"

	"keyferry/offline/internal/sandbox/container"
	"keyferry/pkg/control"
	"keyferry/pkg/durable"
	"keyferry/pkg/harden"
	"keyferry/pkg/secret"
)

func init() { durable.Container = container.SID(container.Name) }

// Brokered is what a container needs beside the [Limits].
type Brokered struct {
	Not    string // why there is to be no container, if so
	Places []container.Place
	See    any          // what can only be seen outside, and the program inside is told
	Try    func() error // what must work inside
}

// Broker is set before [Enter].
var Broker Brokered

// Entered reports whether the process is in the container, or tries it.
func Entered() bool { return container.Now() != container.Outside }

// Enter shuts the process in. As on Linux it does not return at the first call, if
// it can be had: the same program runs in an AppContainer, see package container,
// and this process ends as that does. Else this process goes on, and the record says
// why. Either way it can start no other program from then on.
func Enter(l Limits) (Held, error) {
	held := Held{}
	switch container.Now() {
	case container.Outside:
		held.Lacks = Broker.Not
		if window := secret.NotAConsole(); window != "" { // which only its child can see
			held.Lacks = "the program runs in " + window
		}
		if held.Lacks == "" {
			if err := harden.Process(); err != nil { // it has a handle to the process that reads the secrets
				return held, err
			}
			var code uint32
			if code, held.Lacks = container.Enter(&container.Broker{Network: l.Network, See: Broker.See}, Broker.Places); held.Lacks == "" {
				windows.ExitProcess(code)
			}
		}
	case container.Trial:
		container.Try(Broker.Places, func() error {
			if err := harden.Process(); err != nil { // as the command does
				return err
			}
			return Broker.Try()
		})
	case container.Inside:
		if err := container.Is(); err != nil {
			return held, control.Sandbox.Refuse("this process is not in the container that its environment speaks of: %w", err).
				WithHint("take the variable KEYFERRY_INSIDE out of the environment: the program sets it for itself alone")
		}
		held.AppContainer, held.Writable = container.Name, []string{}
		for _, place := range Broker.Places {
			if place.Write {
				held.Writable = append(held.Writable, filepath.Clean(place.Path))
			}
		}
		held.Loopback = l.Network
	}
	held.OnlyProcess = alone() == nil // a job with limits of its interface, which a parent may have set, forbids that
	return held, nil
}

// alone forbids child processes, by a job object that this process alone is in.
func alone() error {
	job, err := windows.CreateJobObject(nil, nil) // open as long as the process is
	if err != nil {
		return err
	}
	limits := windows.JOBOBJECT_BASIC_LIMIT_INFORMATION{LimitFlags: windows.JOB_OBJECT_LIMIT_ACTIVE_PROCESS, ActiveProcessLimit: 1}
	if _, err = windows.SetInformationJobObject(job, windows.JobObjectBasicLimitInformation, uintptr(unsafe.Pointer(&limits)), uint32(unsafe.Sizeof(limits))); err != nil {
		return err
	}
	return windows.AssignProcessToJobObject(job, windows.CurrentProcess())
}
