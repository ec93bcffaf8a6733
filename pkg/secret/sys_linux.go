// SPDX-License-Identifier: Apache-2.0

package secret

import (
	"errors"
	"io/fs"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

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
