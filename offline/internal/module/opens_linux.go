// SPDX-License-Identifier: Apache-2.0

package module

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Opens does something, and returns what was opened for it that the sandbox forbids,
// in the order of the calls: closed again or not, by this thread or by one that it
// starts. The kernel stops each such call and asks (seccomp_unotify(2)); each is let
// through. It is for outside of the sandbox, and for once in a process. An error says that
// the kernel does not tell; then something was done all the same.
func Opens(do func()) (found []Need, err error) {
	before := descriptors()
	var mu sync.Mutex
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the filter stays on the thread, which ends with the goroutine
		var listener int
		if listener, err = listen(); err == nil {
			go answer(listener, func(n Need) {
				mu.Lock()
				defer mu.Unlock()
				found = append(found, n)
			})
		}
		do()
	}()
	<-done
	for fd := range descriptors() { // the program is executed once more: what is open is not to come along
		if !before[fd] {
			unix.CloseOnExec(fd)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	return found, err
}

// descriptors are what the process holds open.
func descriptors() map[int]bool {
	open := map[int]bool{}
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil {
			open[fd] = true
		}
	}
	return open
}

// listen puts a filter on the calling thread that has the kernel ask at calls that the
// sandbox may forbid.
func listen() (listener int, err error) {
	const number, firstArg, thirdArg = 0, 16, 32 // offsets in struct seccomp_data
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	jump := func(comparison uint16, k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_K | comparison, K: k, Jt: yes, Jf: no}
	}
	ret := func(action uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
	}
	f := []unix.SockFilter{
		load(number),
		jump(unix.BPF_JEQ, unix.SYS_CONNECT, 6, 0),
		jump(unix.BPF_JEQ, unix.SYS_SOCKET, 0, 2),
		load(firstArg), jump(unix.BPF_JEQ, unix.AF_UNIX, 4, 3),
		jump(unix.BPF_JEQ, unix.SYS_OPENAT, 0, 3),
		load(thirdArg), jump(unix.BPF_JSET, unix.O_ACCMODE|unix.O_CREAT|unix.O_TRUNC, 0, 1),
		ret(unix.SECCOMP_RET_USER_NOTIF), ret(unix.SECCOMP_RET_ALLOW),
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, os.NewSyscallError("PR_SET_NO_NEW_PRIVS", err)
	}
	program := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return 0, os.NewSyscallError("seccomp", errno)
	}
	return int(fd), nil
}

// notice is struct seccomp_notif, reply struct seccomp_notif_resp.
type notice struct {
	id        uint64
	thread    uint32
	_         uint32
	number    int32
	_         uint32
	_         uint64
	arguments [6]uint64
}

type reply struct {
	id    uint64
	_     int64
	_     int32
	flags uint32
}

// answer lets each call through, and tells what it needs of the sandbox. It ends with
// the process: threads of the module may live on.
func answer(listener int, needs func(Need)) {
	for {
		var n notice
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&n))); errno != 0 {
			if errno == unix.EINTR || errno == unix.ENOENT { // the thread is gone
				continue
			}
			_ = unix.Close(listener) // so that nothing waits for an answer
			return
		}
		if need, is := n.needs(); is {
			needs(need)
		}
		r := reply{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&r)))
	}
}

// needs says what a call needs of the sandbox.
func (n *notice) needs() (need Need, is bool) {
	switch {
	case n.number == unix.SYS_SOCKET && n.arguments[0] == unix.AF_NETLINK:
		return Need{What: "a netlink socket, as modules for USB have it", Flag: NetworkFlag}, true
	case n.number == unix.SYS_SOCKET:
		return Need{What: "a network socket", Flag: NetworkFlag}, true
	case n.number == unix.SYS_CONNECT:
		address := n.memory(n.arguments[1], int(min(n.arguments[2], unix.SizeofSockaddrUnix)))
		switch {
		case len(address) < 3:
		case address[0] == unix.AF_UNIX && address[2] == 0:
			return Need{What: fmt.Sprintf("the abstract unix socket @%s", strings.TrimRight(string(address[3:]), "\x00")), Flag: AbstractFlag}, true
		case address[0] == unix.AF_INET && len(address) >= 8:
			return Need{What: fmt.Sprintf("a connection to %d.%d.%d.%d, port %d", address[4], address[5], address[6], address[7], int(address[2])<<8|int(address[3])), Flag: NetworkFlag}, true
		}
		return need, false
	}
	path, _, _ := strings.Cut(string(n.memory(n.arguments[1], unix.PathMax)), "\x00")
	if !filepath.IsAbs(path) {
		dir := fmt.Sprintf("/proc/%d/cwd", n.thread)
		if fd := int32(n.arguments[0]); fd != unix.AT_FDCWD {
			dir = fmt.Sprintf("/proc/%d/fd/%d", n.thread, fd)
		}
		at, err := os.Readlink(dir)
		if err != nil {
			return need, false
		}
		path = filepath.Join(at, path)
	}
	if strings.HasPrefix(path, "/proc/") { // a thread's name and the like, which no module misses
		return need, false
	}
	return Need{What: path + ", to write", Flag: WritesFlag, Place: place(path)}, true
}

// place is where a module may write so that it can write a file again: one that it makes
// may have another name the next time.
func place(path string) string {
	for _, dir := range []string{"/dev/shm", "/dev/bus/usb"} {
		if strings.HasPrefix(path, dir+"/") {
			return dir
		}
	}
	_, err := os.Stat(path)
	if dir := filepath.Dir(path); dir != "/" && errors.Is(err, os.ErrNotExist) {
		return dir
	}
	return path
}

// memory reads up to size bytes of the thread that asks, which waits meanwhile.
func (n *notice) memory(at uint64, size int) []byte {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", n.thread))
	if err != nil {
		return nil
	}
	defer f.Close()
	data := make([]byte, size)
	read := 0
	for read < size { // a page that is not there may follow the text
		end := min(size, read+4096-int((at+uint64(read))%4096))
		got, err := f.ReadAt(data[read:end], int64(at)+int64(read))
		if read += got; err != nil {
			break
		}
	}
	return data[:read]
}
