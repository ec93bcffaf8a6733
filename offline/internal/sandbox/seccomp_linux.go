// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"os"
	"slices"
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

// Offsets in struct seccomp_data, the kernel's description of a call. Of an
// argument this is the low half: both architectures are little-endian.
const (
	callNumber = 0
	callArch   = 4
	firstArg   = 16
	secondArg  = 24
)

const cancelled = 0xffffffff // the number -1

// noSocket are the calls that make a socket of the family in their first
// argument.
var noSocket = []uint32{unix.SYS_SOCKET, unix.SYS_SOCKETPAIR}

// noCall are the calls that are refused altogether, to root as well.
var noCall = []uint32{
	// io_uring makes sockets and writes files where no filter sees it.
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	// Other processes, and what they have open.
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD,
	// Code in the kernel.
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_BPF, unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD,
	// Another view of the file system or the network.
	unix.SYS_SETNS, unix.SYS_UNSHARE, unix.SYS_CHROOT, unix.SYS_PIVOT_ROOT, unix.SYS_OPEN_BY_HANDLE_AT,
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_MOUNT_SETATTR,
	unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK,
	// The machine.
	unix.SYS_REBOOT, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_ACCT, unix.SYS_QUOTACTL,
	unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME,
}

// noRequest are the requests of ioctl that type into a terminal for the person
// at it: the shell would run what was typed once the program has ended, outside
// of the sandbox. The kernel reads 32 bits of a request, so the filter does.
var noRequest = []uint32{unix.TIOCSTI, tiocLinux}

const tiocLinux = 0x541c // TIOCLINUX, which pastes on the console

// newNamespaces are the flags of clone that do what unshare does.
const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// question is a refused call too: pidfd_getfd, whose error tells which filter is in
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
// process, since its numbers mean other calls. The number -1 is no call and
// passes: a tracer that lets a call fail puts it in its place, as our tests do.
func filter(network bool) []unix.SockFilter {
	f := []unix.SockFilter{
		load(callArch), unless(unix.BPF_JEQ, auditArch, 1), ret(unix.SECCOMP_RET_KILL_PROCESS),
		load(callNumber), when(unix.BPF_JEQ, cancelled, 1), ret(unix.SECCOMP_RET_ALLOW),
		when(unix.BPF_JGE, foreignNumbers, 1), ret(unix.SECCOMP_RET_KILL_PROCESS),
	}
	for _, call := range slices.Concat(noCall, archCalls) {
		f = append(f, when(unix.BPF_JEQ, call, 1), refuse)
	}
	f = append(f, when(unix.BPF_JEQ, unix.SYS_IOCTL, 6), load(secondArg))
	for _, request := range noRequest {
		f = append(f, when(unix.BPF_JEQ, request, 1), refuse)
	}
	f = append(f, ret(unix.SECCOMP_RET_ALLOW))
	f = append(f, when(unix.BPF_JEQ, unix.SYS_CLONE, 4), load(firstArg), when(unix.BPF_JSET, newNamespaces, 1), refuse, ret(unix.SECCOMP_RET_ALLOW))
	// The flags of clone3 are behind a pointer, where no filter sees them. A C
	// library that finds no clone3 takes clone.
	f = append(f, when(unix.BPF_JEQ, unix.SYS_CLONE3, 1), ret(unix.SECCOMP_RET_ERRNO|uint32(unix.ENOSYS)))
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
