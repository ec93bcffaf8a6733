// SPDX-License-Identifier: Apache-2.0

package secret

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"

	"keyferry/pkg/control"
)

// openTerminal opens the console that the process was started from. Where that is
// hidden behind something else that looks like a terminal, nobody would ever
// answer.
func openTerminal() (terminal, error) {
	if other := NotAConsole(); other != "" {
		return terminal{}, control.NoTerminal.Refuse("%s is no console: a secret can't be typed into it", other).
			WithHint("run it in Windows Terminal, PowerShell or cmd, or there by 'winpty'")
	}
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

// NotAConsole names the window that a hidden console stands behind: mintty of Git
// and Cygwin, whose pipes have names of their own, or PowerShell ISE. Else it is
// empty.
func NotAConsole() string {
	for _, stream := range []uint32{windows.STD_INPUT_HANDLE, windows.STD_OUTPUT_HANDLE, windows.STD_ERROR_HANDLE} {
		handle, err := windows.GetStdHandle(stream)
		if err != nil {
			continue
		}
		name := strings.ToLower(pipeName(handle))
		if (strings.HasPrefix(name, `\msys-`) || strings.HasPrefix(name, `\cygwin-`)) && strings.Contains(name, "-pty") {
			return "this window (mintty)"
		}
	}
	if strings.EqualFold(parentName(), "powershell_ise.exe") {
		return "PowerShell ISE"
	}
	return ""
}

func pipeName(handle windows.Handle) string {
	if kind, err := windows.GetFileType(handle); err != nil || kind != windows.FILE_TYPE_PIPE {
		return ""
	}
	var info struct {
		length uint32
		name   [windows.MAX_PATH]uint16
	}
	if windows.GetFileInformationByHandleEx(handle, windows.FileNameInfo, (*byte)(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info))) != nil {
		return ""
	}
	return windows.UTF16ToString(info.name[:min(int(info.length)/2, len(info.name))])
}

// parentName is the file name of the program that started this one.
func parentName() string {
	processes, err := windows.CreateToolhelp32Snapshot(windows.TH32CS_SNAPPROCESS, 0)
	if err != nil {
		return ""
	}
	defer windows.CloseHandle(processes)
	parent := uint32(os.Getppid())
	entry := windows.ProcessEntry32{Size: uint32(unsafe.Sizeof(windows.ProcessEntry32{}))}
	for err = windows.Process32First(processes, &entry); err == nil; err = windows.Process32Next(processes, &entry) {
		if entry.ProcessID == parent {
			return windows.UTF16ToString(entry.ExeFile[:])
		}
	}
	return ""
}

// silence turns off the console's echo, and has it hand over whole lines, which an
// earlier program may have turned off.
func silence(console *os.File) error {
	var mode uint32
	if err := windows.GetConsoleMode(windows.Handle(console.Fd()), &mode); err != nil {
		return err
	}
	return windows.SetConsoleMode(windows.Handle(console.Fd()), inLines(mode)&^windows.ENABLE_ECHO_INPUT)
}

func inLines(mode uint32) uint32 {
	return (mode | windows.ENABLE_LINE_INPUT | windows.ENABLE_PROCESSED_INPUT) &^ windows.ENABLE_VIRTUAL_TERMINAL_INPUT
}

// Lines has a console hand over whole lines and show them, whatever an earlier program
// has left. What is no console stays as it is.
func Lines(f *os.File) (restore func()) {
	console, before := windows.Handle(f.Fd()), uint32(0)
	if windows.GetConsoleMode(console, &before) != nil || windows.SetConsoleMode(console, inLines(before)|windows.ENABLE_ECHO_INPUT) != nil {
		return func() {}
	}
	return func() { windows.SetConsoleMode(console, before) }
}

// Settle is how long an end of input may come before the signal that ended it: Ctrl-C
// ends the reading of a line first.
const Settle = time.Second

// GoesOn tells nothing: no program is suspended on this system.
func GoesOn() (goesOn <-chan os.Signal, stop func()) { return nil, func() {} }

func suspends() (suspended <-chan os.Signal, stop func()) { return nil, func() {} }

func suspend() error { return nil }

// inherited returns standard input, the only descriptor that has a number here.
func inherited(fd uint) *os.File {
	if fd != 0 {
		return nil
	}
	return os.Stdin
}

// shared: access lists of files are inherited from their directory here, and no mode
// tells of them.
func shared(fs.FileInfo, fs.FileMode) bool { return false }
