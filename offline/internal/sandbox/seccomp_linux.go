// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hasSeccomp reports whether the kernel takes filters: without them, it does
// not know the action to kill a process either.
func hasSeccomp() bool {
	action := uint32(unix.SECCOMP_RET_KILL_PROCESS)
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, getActionAvail, 0, uintptr(unsafe.Pointer(&action)))
	return errno == 0
}

const getActionAvail = 2 // SECCOMP_GET_ACTION_AVAIL

// Offsets in struct seccomp_data, which a filter sees of a call.
const (
	callNumber = 0
	callArch   = 4
	firstArg   = 16 // its low half: both architectures are little-endian
)

const cancelled = 0xffffffff // the number -1

// noSocket are the calls that make a socket of the family in their first
// argument.
var noSocket = []uint32{unix.SYS_SOCKET, unix.SYS_SOCKETPAIR}

// noCall are the calls that are refused altogether: io_uring, which makes
// sockets and writes files where no filter sees it, and the ways to take what
// another process has open.
var noCall = []uint32{
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_WRITEV,
}

// question is the last of them: pidfd_getfd, whose error tells which filter is in
// force. So the program can ask without trying to open a socket, and a trace
// of an import shows none. The kernel itself never gives ENETDOWN there.
const (
	question   = unix.SYS_PIDFD_GETFD
	socketShut = unix.ENETDOWN
)

// filterShut reports whether a filter is in force that lets no socket but unix
// ones be opened.
func filterShut() bool {
	_, _, errno := unix.RawSyscall(question, ^uintptr(0), 0, 0)
	return errno == socketShut
}

// filter is the program that the kernel runs at each system call. A call of
// another architecture (on amd64: of 32 bits, or x32 by its number) ends the
// process, since its numbers mean other calls. Not so the number -1, which is no
// call: a tracer that lets a call fail puts it in its place, as our tests do.
func filter(network bool) []unix.SockFilter {
	f := []unix.SockFilter{
		load(callArch), unless(unix.BPF_JEQ, auditArch, 1), ret(unix.SECCOMP_RET_KILL_PROCESS),
		load(callNumber), when(unix.BPF_JEQ, cancelled, 1), ret(unix.SECCOMP_RET_ALLOW),
		when(unix.BPF_JGE, foreignNumbers, 1), ret(unix.SECCOMP_RET_KILL_PROCESS),
	}
	for _, call := range noCall {
		f = append(f, when(unix.BPF_JEQ, call, 1), refuse)
	}
	answer := unix.EPERM
	if !network {
		answer = socketShut
		for _, call := range noSocket {
			f = append(f, when(unix.BPF_JEQ, call, 4), load(firstArg), unless(unix.BPF_JEQ, unix.AF_UNIX, 1), refuse, ret(unix.SECCOMP_RET_ALLOW))
		}
	}
	f = append(f, when(unix.BPF_JEQ, question, 1), ret(unix.SECCOMP_RET_ERRNO|uint32(answer)))
	return append(f, ret(unix.SECCOMP_RET_ALLOW))
}

var refuse = ret(unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM))

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

// when goes on with the next instructions if the comparison holds, else skips
// that many.
func when(comparison uint16, k uint32, instructions uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_K | comparison, Jf: instructions, K: k}
}

// unless is the other way round.
func unless(comparison uint16, k uint32, instructions uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_K | comparison, Jt: instructions, K: k}
}

func ret(action uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
}

// filterCalls puts the filter on the calling thread, which has
// PR_SET_NO_NEW_PRIVS.
func filterCalls(network bool) error {
	f := filter(network)
	program := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&program))); errno != 0 {
		return os.NewSyscallError("seccomp", errno)
	}
	return nil
}
