// SPDX-License-Identifier: Apache-2.0

package testbin

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// alone is the environment variable that tells tests that they are alone.
const alone = "KEYFERRY_TEST_ALONE"

// NewNetwork has a command start in a network namespace of its own, in which
// there is the loopback and nothing else. A user who is not root gets a user
// namespace for it, in which they stay who they are.
func NewNetwork(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if uid, gid := os.Getuid(), os.Getgid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
		cmd.SysProcAttr.AmbientCaps = []uintptr{unix.CAP_NET_ADMIN}
	}
}

// MainAlone is [Main] with the tests, and all programs that they run, in such a
// namespace. Where none can be had they run as ever, and [NeedAlone] skips
// those that show nothing then.
func MainAlone(m *testing.M) int {
	if os.Getenv(alone) != "" {
		if err := loopbackUp(); err != nil {
			fmt.Fprintln(os.Stderr, "the loopback of the network namespace:", err)
			return 1
		}
		return m.Run()
	}
	return withBinaries(func() int {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), alone+"=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		NewNetwork(cmd)
		err := cmd.Run()
		if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
			fmt.Fprintln(os.Stderr, "no network namespace can be made, so the tests run beside this machine's network:", err)
			return m.Run()
		}
		return cmd.ProcessState.ExitCode()
	})
}

// NeedAlone skips a test unless it runs under [MainAlone] in a namespace.
func NeedAlone(t *testing.T) {
	t.Helper()
	if os.Getenv(alone) == "" {
		t.Skip("this system lets this user make no network namespace")
	}
}

// Address is one of this machine in the namespace of [MainAlone] that looks like
// another machine's.
const Address = "192.0.2.1"

// loopbackUp brings the loopback up, with Address beside 127.0.0.1.
func loopbackUp() (err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_LOOPBACK | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return err
	}
	second, err := unix.NewIfreq("lo:1")
	if err != nil {
		return err
	}
	if err := second.SetInet4Addr([]byte{192, 0, 2, 1}); err != nil {
		return err
	}
	return unix.IoctlIfreq(fd, unix.SIOCSIFADDR, second)
}
