// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"unsafe"

	"golang.org/x/sys/windows"
)

// cPath is a path as a C library opens it, which SoftHSM reads from its
// configuration: in the system's code page.
func cPath(path string) string {
	wide, err := windows.UTF16FromString(path)
	if err != nil {
		return path
	}
	narrow := make([]byte, 4*len(wide))
	n, _, _ := windows.NewLazySystemDLL("kernel32.dll").NewProc("WideCharToMultiByte").Call(0, 0,
		uintptr(unsafe.Pointer(&wide[0])), uintptr(len(wide)-1), uintptr(unsafe.Pointer(&narrow[0])), uintptr(len(narrow)), 0, 0)
	return string(narrow[:n])
}
