// SPDX-License-Identifier: Apache-2.0

package secret

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Harden forbids core dumps and the reading of this process's memory by other
// processes of the same user. It is called before the first secret is read.
func Harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid core dumps (PR_SET_DUMPABLE): %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbid core dumps (RLIMIT_CORE): %w", err)
	}
	return nil
}

// LockMemory keeps the process's memory, the C libraries' too, out of swap, as
// far as the system allows: a user who may lock some memory only is not helped,
// since a program in Go would fail at the first page beyond. It returns what
// came of it.
func LockMemory() Memory {
	var limit unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit)
	if err == nil && (limit.Cur == unix.RLIM_INFINITY || os.Geteuid() == 0) {
		// Pages are locked when they are used: Go reserves far more than it uses.
		if unix.Mlockall(unix.MCL_CURRENT|unix.MCL_FUTURE|unix.MCL_ONFAULT) == nil {
			return Locked
		}
	}
	// The first line is the head of the table; each other one is an area of swap.
	if areas, err := os.ReadFile("/proc/swaps"); err == nil && strings.Count(string(areas), "\n") <= 1 {
		return NoSwap
	}
	return Swappable
}

// shared reports whether a file of this user's gives others one of these rights. Modes of
// somebody else's file are for its owner to choose, as ssh has it of keys.
func shared(info fs.FileInfo, rights fs.FileMode) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode().IsRegular() && int(stat.Uid) == os.Geteuid() && info.Mode().Perm()&rights != 0
}

// openTerminal opens the terminal that the process was started from.
func openTerminal() (terminal, error) {
	in, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return terminal{}, err
	}
	out, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return terminal{}, errors.Join(err, in.Close())
	}
	return terminal{in, out}, nil
}

// silence turns off the terminal's echo, and has it hand over whole lines.
func silence(tty *os.File) error {
	t, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		return err
	}
	t.Lflag &^= unix.ECHO
	t.Lflag |= unix.ICANON | unix.ISIG
	t.Iflag |= unix.ICRNL
	return unix.IoctlSetTermios(int(tty.Fd()), unix.TCSETS, t)
}

// Lines changes nothing: a shell has put the terminal back.
func Lines(*os.File) (restore func()) { return func() {} }

// Settle is how long an end of input may come before the signal that ended it.
const Settle = 0

// GoesOn tells when a program that was suspended, by whatever, goes on.
func GoesOn() (goesOn <-chan os.Signal, stop func()) { return notified(unix.SIGCONT) }

// suspends tells when the terminal's suspend key was typed, which suspends no more.
func suspends() (suspended <-chan os.Signal, stop func()) { return notified(unix.SIGTSTP) }

func notified(s os.Signal) (<-chan os.Signal, func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, s)
	return c, func() { signal.Stop(c) }
}

// suspend stops the process, as the suspend key does to one that does not mind.
func suspend() error { return unix.Kill(unix.Getpid(), unix.SIGSTOP) }

// inherited returns the descriptor as a file, or nil where the process was not
// started with it: of what it opened itself, Go has all closed at exec.
func inherited(fd uint) *os.File {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC != 0 {
		return nil
	}
	return os.NewFile(uintptr(fd), "")
}
