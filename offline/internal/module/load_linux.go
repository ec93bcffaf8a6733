// SPDX-License-Identifier: Apache-2.0

package module

/*
#cgo LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdlib.h>
*/
import "C"

import (
	"unsafe"

	"keyferry/pkg/control"
)

// usualPlaces is where Debian, Ubuntu, Fedora and a build from source put
// SoftHSM 2. Absolute, so that the loader searches nothing by itself.
var usualPlaces = []string{
	"/usr/lib/softhsm/libsofthsm2.so",
	"/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
	"/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
	"/usr/lib64/pkcs11/libsofthsm2.so",
	"/usr/lib64/softhsm/libsofthsm2.so",
	"/usr/lib/pkcs11/libsofthsm2.so",
	"/usr/local/lib/softhsm/libsofthsm2.so",
}

func loadLibrary(path string) (library uintptr, fault string) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	if handle := C.dlopen(name, C.RTLD_LAZY); handle != nil {
		return uintptr(handle), ""
	}
	return 0, "the system's loader says: " + C.GoString(C.dlerror())
}

// inItsDirectory does nothing: paths of this system begin at one root.
func inItsDirectory(string) (back func() error, err error) { return func() error { return nil }, nil }

// Loaded is the name under which the loader knows a library that it has loaded.
func Loaded(path string) string { return path }

// missing is how a person learns what a library lacks.
func missing(path string) string { return "`ldd " + path + "` names what is missing" }

// SearchIn refuses directories: the loader has them from the library itself.
func SearchIn(dirs []string) error {
	if len(dirs) > 0 {
		return control.CommandLine.Refuse("--hsm-dll-dir is for Windows; this system's loader takes LD_LIBRARY_PATH")
	}
	return nil
}

// install is the hint for a module that is not there: nothing beyond the control's.
func install() string { return "" }
