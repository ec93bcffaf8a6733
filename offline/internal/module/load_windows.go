// SPDX-License-Identifier: Apache-2.0

package module

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/windows"

	"keyferry/pkg/control"
)

// usualPlaces is where the installers of SoftHSM 2 put it. Absolute, so that
// Windows searches nothing by itself.
var usualPlaces = []string{
	`C:\SoftHSM2\lib\softhsm2-x64.dll`,
	`C:\Program Files\SoftHSM2\lib\softhsm2-x64.dll`,
	`C:\Program Files\SoftHSM2\lib\softhsm2.dll`,
}

// vendors is where the installers of HSMs put their modules.
var vendors = []string{
	`C:\Program Files\Amazon\CloudHSM\lib\cloudhsm_pkcs11.dll`,
	`C:\Program Files\Entrust\nfast\toolkits\pkcs11\cknfast.dll`,
	`C:\Program Files\nCipher\nfast\toolkits\pkcs11\cknfast.dll`,
	`C:\Program Files\SafeNet\LunaClient\cryptoki.dll`,
	`C:\Program Files\Utimaco\CryptoServer\Lib\cs_pkcs11_R3.dll`,
	`C:\Program Files\Yubico\YubiHSM Shell\bin\pkcs11\yubihsm_pkcs11.dll`,
	`C:\Program Files\OpenSC Project\OpenSC\pkcs11\opensc-pkcs11.dll`,
}

// install is the hint for a module that is not there.
func install() string {
	var there []string
	for _, path := range append(vendors, usualPlaces...) {
		if _, err := os.Stat(path); err == nil {
			there = append(there, path)
		}
	}
	hint := "install the HSM's PKCS#11 module (for a rehearsal SoftHSM 2 for Windows) or name its path with --hsm-module"
	if len(there) > 0 {
		hint += "; there is " + strings.Join(there, ", ")
	}
	return hint
}

// loadLibrary loads a DLL by its full path; what it needs itself, from its own
// directory, from System32, and from those of [SearchIn], never from the current
// directory or PATH.
func loadLibrary(path string) (library uintptr, fault string) {
	for _, r := range filepath.Base(path) {
		if r > 0x7E { // crypto11 and miekg/pkcs11 pass the name as bytes in a code page
			return 0, "its file name holds letters outside of ASCII: copy it under another name; those of its directory don't matter"
		}
	}
	err := SearchIn([]string{filepath.Dir(path)}) // also for what it loads itself, later
	if err == nil {
		const from = windows.LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR | windows.LOAD_LIBRARY_SEARCH_SYSTEM32 | windows.LOAD_LIBRARY_SEARCH_USER_DIRS
		var handle windows.Handle
		if handle, err = windows.LoadLibraryEx(path, 0, from); err == nil {
			return uintptr(handle), ""
		}
	}
	var code windows.Errno
	switch {
	case errors.Is(err, windows.ERROR_BAD_EXE_FORMAT) && is32Bit(path):
		return 0, "it is a DLL for programs of 32 bits, and this is one of 64: name the vendor's module of 64 bits"
	case errors.As(err, &code):
		return 0, fmt.Sprintf("Windows says error %d: %v", uint32(code), code)
	}
	return 0, err.Error()
}

// inItsDirectory makes the module's directory the current one until back is called: what
// the module opens by a path without a drive when it starts (an OpenSSL in it, its
// configuration /usr/local/ssl/openssl.cnf, which may name further DLLs) would be the
// stick's otherwise. A directory that SOFTHSM2_CONF and the like name has to be whole.
func inItsDirectory(path string) (back func() error, err error) {
	before, err := os.Getwd()
	if err == nil {
		err = os.Chdir(filepath.Dir(path))
	}
	return func() error { return os.Chdir(before) }, err
}

// is32Bit reads the machine in a DLL's head: at 0x3C is the place of PE, two zeros
// and the machine.
func is32Bit(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var at [4]byte
	var head [6]byte
	_, err = f.ReadAt(at[:], 0x3C)
	if err == nil {
		_, err = io.ReadFull(io.NewSectionReader(f, int64(binary.LittleEndian.Uint32(at[:])), 6), head[:])
	}
	const i386 = "PE\x00\x00\x4C\x01"
	return err == nil && string(head[:]) == i386
}

// Loaded is the name under which Windows knows a DLL that it has loaded, whatever
// letters are in its path.
func Loaded(path string) string { return filepath.Base(path) }

// missing is how a person learns what a DLL lacks.
func missing(string) string {
	return "Windows does not name what is missing, and looks for it only beside the module and in System32: the vendor's client, the Visual C++ runtime, or DLLs in a directory to be named with --hsm-dll-dir"
}

// SearchIn has Windows look for DLLs in directories, too.
func SearchIn(dirs []string) error {
	for _, dir := range dirs {
		dir, err := filepath.Abs(dir)
		var name *uint16
		if err == nil {
			name, err = windows.UTF16PtrFromString(dir)
		}
		if err == nil {
			_, err = windows.AddDllDirectory(name)
		}
		if err != nil {
			return control.InputFile.Refuse("Windows can't look for DLLs in %s: %w", dir, err)
		}
	}
	return nil
}
