// SPDX-License-Identifier: Apache-2.0

package module

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Opens does something, and returns what the process holds open after it that the sandbox
// forbids, each with the flag that allows it. It is for outside of the sandbox.
func Opens(do func()) []string {
	before := descriptors()
	do()
	found := map[string]bool{}
	for fd, what := range descriptors() {
		if before[fd] == what {
			continue
		}
		if flag := needs(fd, what); flag != "" {
			found[flag] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// descriptors are what the process holds open.
func descriptors() map[int]string {
	open := map[int]string{}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return open
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if what, e := os.Readlink(filepath.Join("/proc/self/fd", e.Name())); err == nil && e == nil {
			open[fd] = what
		}
	}
	return open
}

// needs says what an open descriptor needs of the sandbox; empty: nothing.
func needs(fd int, what string) string {
	if strings.HasPrefix(what, "socket:") {
		family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		switch {
		case err != nil:
			return ""
		case family == unix.AF_NETLINK:
			return "a netlink socket, as modules for USB have it: --unsafe-hsm-network"
		case family != unix.AF_UNIX:
			return "a network socket: --unsafe-hsm-network"
		}
		var peer unix.RawSockaddrUnix // by the bare call: the library's brings code for all kinds of sockets along
		size := uint32(unix.SizeofSockaddrUnix)
		_, _, failed := unix.RawSyscall(unix.SYS_GETPEERNAME, uintptr(fd), uintptr(unsafe.Pointer(&peer)), uintptr(unsafe.Pointer(&size)))
		head := uint32(unsafe.Offsetof(peer.Path)) + 1 // the name begins with a zero
		if failed != 0 || size <= head || peer.Path[0] != 0 {
			return ""
		}
		name := make([]byte, size-head)
		for i := range name {
			name[i] = byte(peer.Path[i+1])
		}
		return fmt.Sprintf("the abstract unix socket @%s: --hsm-abstract-sockets", name)
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_ACCMODE == unix.O_RDONLY || !strings.HasPrefix(what, "/") {
		return ""
	}
	return fmt.Sprintf("%s, to write: --hsm-writes %s", what, what)
}
