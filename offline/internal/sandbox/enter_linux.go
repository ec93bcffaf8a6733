// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"keyferry/pkg/control"
	"keyferry/pkg/durable"
)

// inside is the environment variable that tells the program that it has entered.
const inside = "KEYFERRY_INSIDE"

// alwaysWritable is where a password is asked for, and where nothing arrives.
var alwaysWritable = []string{"/dev/tty", "/dev/null"}

// Entered reports whether the process is inside already.
func Entered() bool {
	_, entered := os.LookupEnv(inside)
	return entered
}

// Enter shuts the process in. At the first call it does not return: it executes
// the same program with the same arguments, whose call returns what holds.
// What the kernel lacks does not hold; a sandbox that can't be built of what
// the kernel has, or does not hold, is refused (KF-AIRGAP-SANDBOX).
func Enter(l Limits) (Held, error) {
	places, err := existing(slices.Concat(l.Writable, alwaysWritable))
	if err != nil {
		return Held{}, err
	}
	abi := landlockABI()
	if Entered() {
		return verify(l, abi, places)
	}
	if _, err := os.Stat("/proc/self/exe"); err != nil {
		return Held{}, control.Sandbox.Refuse("/proc is not mounted: %w", err).
			WithHint("the program starts itself anew by way of /proc, and looks at the machine there: 'mount -t proc proc /proc', then run it again")
	}
	runtime.LockOSThread() // for good: the thread ends with execve, or the program does with the error
	if err := shut(l, abi, places); err != nil {
		return Held{}, control.Sandbox.Refuse("the sandbox can't be entered: %w", err)
	}
	// The link of the kernel, not the path: the same file, whatever is at the path now.
	err = syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), inside+"=1"))
	return Held{}, control.Sandbox.Refuse("the program can't be executed inside the sandbox: %w", err)
}

// shut restricts the calling thread and whatever it executes.
func shut(l Limits, abi int, places []string) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("PR_SET_NO_NEW_PRIVS", err)
	}
	if abi >= minABI {
		if err := landlock(abi, places, l); err != nil {
			return err
		}
	}
	if !hasSeccomp() {
		return nil
	}
	return filterCalls(l.Network)
}

// verify tries the doors, and reports those that are shut.
func verify(l Limits, abi int, places []string) (held Held, err error) {
	if err := os.Unsetenv(inside); err != nil {
		return held, err
	}
	held.OnlyUnixSockets = filterShut()
	if !held.OnlyUnixSockets && !l.Network && hasSeccomp() {
		return held, broken("open a network socket")
	}
	if abi < minABI {
		held.AbstractSockets = true
		return held, nil
	}
	if canWriteOutside() {
		return held, broken("write outside the places it may write to")
	}
	held.LandlockABI, held.Writable = abi, places
	held.AbstractSockets = l.AbstractSockets || abi < 6
	return held, nil
}

// broken is the refusal of a door that is not shut.
func broken(what string) error {
	return control.Sandbox.Refuse("the kernel lets this process %s, though it says that it is in the sandbox", what).
		WithHint("take the variable %s out of the environment: the program sets it for itself alone", inside)
}

// canWriteOutside opens, for writing, a file that each process may write and
// Keyferry never does: its own name.
func canWriteOutside() bool {
	f, err := os.OpenFile("/proc/self/comm", os.O_WRONLY, 0)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// existing returns each place once, as the path of a file or directory that is
// there: absolute and without links. The nearest directory above stands for a
// place that is not there, unless that holds the home directory: then the place
// is made. One that comes to the root is refused: with it, all could be written.
func existing(places []string) ([]string, error) {
	var found []string
	for _, place := range places {
		path, err := filepath.Abs(place)
		if err != nil {
			return nil, control.Sandbox.Refuse("the directory that the program runs in can't be found: %w", err)
		}
		real, err := nearest(path)
		if err == nil && real != path && holdsHome(real) && real != "/" {
			if err = durable.MkdirAll(path, 0o700); err == nil {
				real, err = filepath.EvalSymlinks(path)
			}
		}
		switch {
		case err != nil:
			return nil, control.Sandbox.Refuse("the places to write to can't be found: %w", err)
		case real == "/":
			return nil, control.InputFile.Refuse("nothing of %s is there but /, in which all could be written", place).
				WithHint("check the path; a new directory must be in one that is there, other than /")
		}
		found = append(found, real)
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// nearest is the path, without links, or that of the nearest directory above it
// that is there.
func nearest(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	for errors.Is(err, fs.ErrNotExist) {
		path = filepath.Dir(path)
		real, err = filepath.EvalSymlinks(path)
	}
	return real, err
}

// holdsHome reports whether dir is the home directory or one above it.
func holdsHome(dir string) bool {
	home, err := os.UserHomeDir()
	if err == nil {
		home, err = filepath.EvalSymlinks(home)
	}
	return err == nil && within(home, dir)
}

// within reports whether path is dir or below it.
func within(path, dir string) bool {
	rest, below := strings.CutPrefix(path, dir)
	return below && (rest == "" || rest[0] == '/' || dir == "/")
}
