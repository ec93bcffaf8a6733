// SPDX-License-Identifier: Apache-2.0

// Package sandbox shuts the disconnected side's process in.
//
// [Enter] gives up all that a process of the disconnected side never needs, before
// it reads a secret. No library, thread, child process or PKCS#11 module can take
// it back, root's neither:
//
//   - sockets other than unix ones, and io_uring, which could open them past
//     the filter (seccomp; unix sockets stay, since PKCS#11 modules talk to
//     their daemons by them);
//   - files: nothing is written, made, removed or renamed outside of the places
//     named (Landlock, ABI 2 or later), and devices obey no ioctl outside of
//     those in /dev (ABI 5);
//   - typing into the terminal for the person at it (TIOCSTI, TIOCLINUX), code
//     in the kernel, mounts and namespaces, other processes' memory (seccomp);
//   - TCP, a second time; unix sockets with abstract names and signals to other
//     processes (Landlock, ABI 4 and 6).
//
// Landlock restricts the calling thread alone, and a Go process has several
// before main starts. So the process restricts one thread and has that thread
// execute the same program again: execve ends all other threads, and each thread
// that starts later inherits the restrictions. Process ID, arguments and open
// files stay; an environment variable tells the program that it is inside, and is
// removed again. The program does not believe it: it asks the filter, and tries to
// write where it may not. Nothing that was open before is closed: standard output
// may be a file anywhere, and a socket that the caller passed on stays one.
//
// Sources: seccomp(2), landlock(7), execve(2), ioctl_tty(2), and the kernel's
// Documentation/userspace-api/landlock.rst for the ABIs.
package sandbox

// Limits say what the process keeps.
type Limits struct {
	// Writable are the files, and the directories with all below them, that may
	// be written. The nearest directory above stands for one that is not there,
	// unless that holds the home directory: then it is made.
	Writable []string
	// Network leaves sockets of all kinds open, for an HSM that is reached by them.
	Network bool
	// AbstractSockets leaves unix sockets with abstract names open, for an HSM's
	// daemon that listens at one.
	AbstractSockets bool
}

// Held says what the kernel holds the process to.
type Held struct {
	OnlyUnixSockets bool     `json:"only_unix_sockets"` // by seccomp
	AbstractSockets bool     `json:"abstract_sockets"`  // as asked for, or with an ABI below 6
	LandlockABI     int      `json:"landlock_abi"`      // 0: files can be written anywhere
	Writable        []string `json:"writable"`          // absolute, links resolved; nil with ABI 0
	OnlyProcess     bool     `json:"only_process"`      // no other process can be started; on Windows
	AppContainer    string   `json:"app_container"`     // its name; on Windows
	Loopback        bool     `json:"loopback"`          // open in the container
	Lacks           string   `json:"lacks"`             // why there is no container
}

// Whole reports whether nothing is open that the limits wanted shut, and all is
// shut that can be.
func (h Held) Whole() bool {
	return h.OnlyUnixSockets && h.LandlockABI > 0 || h.AppContainer != "" && !h.Loopback
}
