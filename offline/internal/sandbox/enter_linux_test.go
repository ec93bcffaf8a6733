// SPDX-License-Identifier: Apache-2.0

package sandbox

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"keyferry/pkg/control"
)

// A test of the sandbox runs this test's binary again, as a program that enters
// the sandbox and tries something.
const (
	trying   = "KEYFERRY_TEST_TRY"      // what
	writable = "KEYFERRY_TEST_WRITABLE" // the place it keeps
	network  = "KEYFERRY_TEST_NETWORK"  // set: sockets too
	abstract = "KEYFERRY_TEST_ABSTRACT" // set: abstract unix sockets too
	outside  = "KEYFERRY_TEST_OUTSIDE"  // set: the sandbox is not entered
)

func TestMain(m *testing.M) {
	if what := os.Getenv(trying); what != "" {
		try(what)
	}
	os.Exit(m.Run())
}

// try prints "did", or the error that stopped it.
func try(what string) {
	var held Held
	var err error
	if os.Getenv(outside) == "" {
		held, err = Enter(Limits{Writable: []string{os.Getenv(writable)}, Network: os.Getenv(network) != "", AbstractSockets: os.Getenv(abstract) != ""})
	}
	if err == nil && what == "held" {
		fmt.Printf("%+v", held)
		os.Exit(0)
	}
	if err == nil {
		err = tries[what]()
	}
	if err != nil {
		fmt.Print(err)
		os.Exit(1)
	}
	fmt.Print("did")
	os.Exit(0)
}

var tries = map[string]func() error{
	"nothing":          func() error { return nil },
	"dial TCP":         func() error { return dial("tcp4", "127.0.0.1:9") },
	"dial TCP over 6":  func() error { return dial("tcp6", "[::1]:9") },
	"dial UDP":         func() error { return dial("udp4", "127.0.0.1:9") },
	"look a name up":   func() error { return dialResolver() },
	"listen":           listen,
	"raw packets":      func() error { return socket(unix.AF_PACKET) },
	"netlink":          func() error { return socket(unix.AF_NETLINK) },
	"vsock":            func() error { return socket(unix.AF_VSOCK) },
	"unix socket":      func() error { return socket(unix.AF_UNIX) },
	"on new threads":   onThreads,
	"io_uring":         func() error { return call(unix.SYS_IO_URING_SETUP) },
	"ptrace":           func() error { return call(unix.SYS_PTRACE) },
	"pidfd_getfd":      func() error { return call(unix.SYS_PIDFD_GETFD) },
	"a child":          func() error { return command(os.Getenv("PROBE"), os.Getenv("CHILD")) },
	"abstract socket":  func() error { return connect(os.Getenv("SOCKET")) },
	"make a device":    func() error { return makeDevice(os.Getenv(writable)) },
	"write where told": func() error { return os.WriteFile(filepath.Join(os.Getenv(writable), "new"), nil, 0o600) },
	"move where told":  moveBetween,
	"write elsewhere":  func() error { return os.WriteFile(filepath.Join(elsewhere(), "new"), nil, 0o600) },
	"append elsewhere": func() error {
		f, err := os.OpenFile(filepath.Join(elsewhere(), "there"), os.O_APPEND|os.O_WRONLY, 0)
		if err == nil {
			f.Close()
		}
		return err
	},
	"remove elsewhere":   func() error { return os.Remove(filepath.Join(elsewhere(), "there")) },
	"truncate elsewhere": func() error { return os.Truncate(filepath.Join(elsewhere(), "there"), 0) },
	"mkdir elsewhere":    func() error { return os.Mkdir(filepath.Join(elsewhere(), "new"), 0o700) },
	"link elsewhere":     func() error { return os.Symlink("/", filepath.Join(elsewhere(), "new")) },
	"move elsewhere": func() error {
		return os.Rename(filepath.Join(os.Getenv(writable), "there"), filepath.Join(elsewhere(), "new"))
	},
	"read elsewhere":      func() error { _, err := os.ReadFile(filepath.Join(elsewhere(), "there")); return err },
	"signal the parent":   func() error { return syscall.Kill(os.Getppid(), 0) },
	"keep the variable":   func() error { return wantUnset(inside) },
	"say nothing to null": func() error { return os.WriteFile("/dev/null", []byte("x"), 0) },
}

func elsewhere() string { return filepath.Join(filepath.Dir(os.Getenv(writable)), "elsewhere") }

func dial(network, address string) error {
	conn, err := net.Dial(network, address)
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.ENETUNREACH) {
		return nil // it had a socket, which is what counts
	}
	if err == nil {
		conn.Close()
	}
	return err
}

func dialResolver() error {
	_, err := net.LookupHost("keyferry.invalid")
	if errors.Is(err, syscall.EPERM) || err != nil && strings.Contains(err.Error(), "operation not permitted") {
		return syscall.EPERM
	}
	return nil // it asked somebody
}

func listen() error {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err == nil {
		l.Close()
	}
	return err
}

func socket(family int) error {
	fd, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// onThreads asks for sockets on threads that start after the sandbox was entered.
func onThreads() error {
	const threads = 8
	errs := make(chan error, threads)
	for range threads {
		go func() {
			runtime.LockOSThread()
			errs <- socket(unix.AF_INET)
		}()
	}
	for range threads {
		if err := <-errs; !errors.Is(err, syscall.EPERM) {
			return fmt.Errorf("a thread got %v", err)
		}
	}
	return syscall.EPERM
}

// call makes a system call with arguments that do no harm.
func call(number uintptr) error {
	_, _, errno := unix.RawSyscall(number, 0, 0, 0)
	if errno == unix.EPERM || errno == unix.ENETDOWN {
		return errno
	}
	return nil // the kernel looked at the arguments
}

func connect(name string) error {
	conn, err := net.Dial("unix", name)
	if err == nil {
		conn.Close()
	}
	return err
}

// makeDevice makes one such as /dev/null.
func makeDevice(dir string) error {
	return unix.Mknod(filepath.Join(dir, "device"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3)))
}

func command(name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Stdin = os.Stdin
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s%w", out, err)
	}
	return nil
}

func moveBetween() error {
	dir := os.Getenv(writable)
	if err := os.Mkdir(filepath.Join(dir, "below"), 0o700); err != nil {
		return err
	}
	return os.Rename(filepath.Join(dir, "there"), filepath.Join(dir, "below", "there"))
}

func wantUnset(name string) error {
	if value, set := os.LookupEnv(name); set {
		return fmt.Errorf("%s=%s", name, value)
	}
	return nil
}

// run enters the sandbox in a program of its own, with a fresh place to write
// to, and returns what it printed.
func run(t *testing.T, what string, env ...string) string {
	t.Helper()
	out, err := inProgram(t, what, env...).CombinedOutput()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func inProgram(t *testing.T, what string, env ...string) *exec.Cmd {
	t.Helper()
	dir := t.TempDir()
	for _, place := range []string{"place", "elsewhere"} {
		if err := os.Mkdir(filepath.Join(dir, place), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, place, "there"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), trying+"="+what, writable+"="+filepath.Join(dir, "place"))
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

// needSandbox skips a test where the kernel has not got what it is about.
func needSandbox(t *testing.T) {
	t.Helper()
	if !hasSeccomp() || landlockABI() < minABI {
		t.Skipf("the sandbox needs seccomp (here: %t) and Landlock ABI %d (here: %d)", hasSeccomp(), minABI, landlockABI())
	}
}

// notForAll is what a machine may refuse to anybody.
var notForAll = []string{"raw packets", "vsock", "io_uring", "on new threads", "dial TCP over 6", "look a name up"}

// What stays possible is possible inside; what is given up is refused inside,
// and is possible outside: else its refusal would show nothing.
func TestSandbox(t *testing.T) {
	needSandbox(t)
	for what, want := range map[string]string{
		"nothing": "did", "unix socket": "did", "write where told": "did", "move where told": "did", "read elsewhere": "did",
		"keep the variable": "did", "say nothing to null": "did",
		"dial TCP": "operation not permitted", "dial TCP over 6": "operation not permitted", "dial UDP": "operation not permitted",
		"look a name up": "operation not permitted", "listen": "operation not permitted", "raw packets": "operation not permitted",
		"netlink": "operation not permitted", "vsock": "operation not permitted", "on new threads": "operation not permitted",
		"io_uring": "operation not permitted", "ptrace": "operation not permitted", "pidfd_getfd": "network is down",
		"write elsewhere": "permission denied", "append elsewhere": "permission denied", "remove elsewhere": "permission denied",
		"mkdir elsewhere": "permission denied", "link elsewhere": "permission denied",
		"move elsewhere": "permission denied",
	} {
		t.Run(what, func(t *testing.T) {
			if got := run(t, what); !strings.HasSuffix(got, want) {
				t.Errorf("inside: %q, want %q", got, want)
			}
			if slices.Contains(notForAll, what) {
				return
			}
			if got := run(t, what, outside+"=1"); got != "did" {
				t.Errorf("outside: %q: its refusal inside shows nothing", got)
			}
		})
	}
	if os.Geteuid() == 0 {
		if got := run(t, "make a device"); !strings.HasSuffix(got, "permission denied") {
			t.Errorf("make a device: %q", got)
		}
	}
	if abi := landlockABI(); abi >= 3 {
		if got := run(t, "truncate elsewhere"); !strings.HasSuffix(got, "permission denied") {
			t.Errorf("truncate elsewhere: %q", got)
		}
	}
	if abi := landlockABI(); abi >= 6 {
		if got := run(t, "signal the parent"); got != "operation not permitted" {
			t.Errorf("signal the parent: %q", got)
		}
	}
}

// The same attempts succeed where the sandbox does not stand in the way.
func TestSandboxWithNetwork(t *testing.T) {
	needSandbox(t)
	for _, what := range []string{"dial TCP", "dial UDP", "listen", "netlink"} {
		if got := run(t, what, network+"=1"); got != "did" {
			t.Errorf("%s: %q", what, got)
		}
	}
	if got := run(t, "io_uring", network+"=1"); got != "operation not permitted" {
		t.Errorf("io_uring: %q", got)
	}
	if got := run(t, "held", network+"=1"); !strings.HasPrefix(got, "{OnlyUnixSockets:false ") || !strings.Contains(got, " Writable:[/") {
		t.Errorf("it says %q", got)
	}
}

func TestHeld(t *testing.T) {
	needSandbox(t)
	got := run(t, "held")
	if !strings.HasPrefix(got, "{OnlyUnixSockets:true AbstractSockets:false ") || !strings.Contains(got, " Writable:[/") || !strings.Contains(got, "/place") {
		t.Errorf("it says %q", got)
	}
}

// A program that believes to be inside, and is not, finds the doors open.
func TestNotInside(t *testing.T) {
	needSandbox(t)
	for name, env := range map[string][]string{"sockets": nil, "files": {network + "=1"}} {
		got := run(t, "nothing", append(env, inside+"=1")...)
		if !strings.Contains(got, control.Sandbox.ID) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// probe compiles the program in C that stands for a child or a module.
func probe(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "probe")
	if out, err := exec.Command("gcc", "-o", path, filepath.Join("testdata", "probe.c")).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	return path
}

// A child in C can no more than we can, and no other architecture's calls help
// it: the kernel ends it. A kernel that lacks the architecture ends it outside of
// the sandbox too, so what the child does there is found out first.
func TestChildren(t *testing.T) {
	needSandbox(t)
	if runtime.GOARCH != "amd64" {
		t.Skip("the C program speaks amd64")
	}
	path := probe(t)
	if err := command(path, "socket"); err != nil {
		t.Fatalf("outside: %v", err)
	}
	for child, want := range map[string]string{
		"socket": "socket: Operation not permitted",
		"x32":    "signal: bad system call",
		"i386":   "signal: bad system call",
	} {
		t.Run(child, func(t *testing.T) {
			got := run(t, "a child", "PROBE="+path, "CHILD="+child)
			if strings.Contains(got, want) {
				return
			}
			if outside := command(path, child); outside != nil && strings.HasPrefix(outside.Error(), "signal: ") && got == outside.Error() {
				t.Skipf("SKIPPED, NOT SHOWN: this kernel has no calls of %s: outside of the sandbox too, the child ends by %v", child, outside)
			}
			t.Errorf("%q, want %q", got, want)
		})
	}
}

// What a module could do to the terminal, to the kernel and to the machine: each
// is tried by a child in C with a terminal of its own, by numbers and arguments
// that the kernel refuses outside of the sandbox for another reason, if at all.
func TestModule(t *testing.T) {
	needSandbox(t)
	path := probe(t)
	for _, attempt := range []string{
		"TIOCSTI", "TIOCSTI with high bits", "TIOCLINUX", "init_module", "finit_module", "delete_module", "bpf",
		"kexec_load", "kexec_file_load", "setns", "unshare", "clone into a namespace", "chroot", "pivot_root", "mount", "umount2",
		"move_mount", "open_tree", "fsopen", "fsmount", "perf_event_open", "process_vm_readv", "open_by_handle_at",
		"reboot", "swapon", "settimeofday", "clock_settime",
	} {
		t.Run(attempt, func(t *testing.T) {
			t.Parallel()
			got, typed := onTerminal(t, "PROBE="+path, "CHILD="+attempt)
			if !strings.Contains(got, "Operation not permitted") || typed {
				t.Errorf("inside: %q, typed into the terminal: %t", got, typed)
			}
			got, _ = onTerminal(t, "PROBE="+path, "CHILD="+attempt, outside+"=1")
			if strings.Contains(got, "Operation not permitted") && os.Geteuid() == 0 && !slices.Contains(refusedToRoot, attempt) {
				t.Errorf("outside: %q: its refusal inside shows nothing", got)
			}
		})
	}
	if got, typed := onTerminal(t, "PROBE="+path, "CHILD=TIOCSTI", outside+"=1"); !typed {
		t.Logf("this kernel types for nobody: %q", got)
	}
	if got, _ := onTerminal(t, "PROBE="+path, "CHILD=clone3"); !strings.Contains(got, "Function not implemented") {
		t.Errorf("clone3: %q", got)
	}
	if abi := landlockABI(); abi < 5 {
		t.Skipf("SKIPPED, NOT SHOWN: device ioctls need Landlock ABI 5 (here: %d)", abi)
	}
	if got, _ := onTerminal(t, "PROBE="+path, "CHILD=device ioctl"); !strings.Contains(got, "Permission denied") {
		t.Errorf("an ioctl of a device that was not named: %q", got)
	}
	if got, _ := onTerminal(t, "PROBE="+path, "CHILD=device ioctl", writable+"=/dev/ptmx"); !strings.Contains(got, "did") {
		t.Errorf("an ioctl of a device that was named: %q", got)
	}
}

// refusedToRoot are the attempts that a kernel may refuse to root as well, by its
// lockdown or by what it was built with.
var refusedToRoot = []string{"TIOCLINUX", "TIOCSTI with high bits", "perf_event_open", "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "bpf"}

// onTerminal is run for a child with a terminal of its own. It returns what was
// printed, and whether the child typed into the terminal.
func onTerminal(t *testing.T, env ...string) (printed string, typed bool) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	cmd := inProgram(t, "a child", env...)
	cmd.Stdin = terminal
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	out, err := cmd.CombinedOutput()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	waiting, err := unix.IoctlGetInt(int(terminal.Fd()), unix.TIOCINQ)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out)), waiting > 0
}

// An abstract unix socket of another process is shut, unless it is asked for.
func TestAbstractSockets(t *testing.T) {
	needSandbox(t)
	if abi := landlockABI(); abi < 6 {
		t.Skipf("SKIPPED, NOT SHOWN: abstract sockets need Landlock ABI 6 (here: %d)", abi)
	}
	name := fmt.Sprintf("@keyferry-test-%d", os.Getpid())
	l, err := net.Listen("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got := run(t, "abstract socket", "SOCKET="+name); !strings.HasSuffix(got, "operation not permitted") {
		t.Errorf("shut: %q", got)
	}
	if got := run(t, "abstract socket", "SOCKET="+name, abstract+"=1"); got != "did" {
		t.Errorf("asked for: %q", got)
	}
	if got := run(t, "held", abstract+"=1"); !strings.Contains(got, " AbstractSockets:true ") {
		t.Errorf("it says %q", got)
	}
}

// What is not there is made where only the home directory is above it, which
// must not become writable.
func TestHomeStaysShut(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	place := filepath.Join(home, ".local", "state")
	got, err := existing([]string{place, filepath.Join(home, "out", "new")})
	if want := []string{place, filepath.Join(home, "out", "new")}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	below := filepath.Join(home, "out", "new", "deeper")
	if got, err := existing([]string{below}); err != nil || !slices.Equal(got, []string{filepath.Dir(below)}) {
		t.Errorf("below a directory of its own: got %q, %v", got, err)
	}
}

// Only a rule's own file or directory is opened; the nearest one that is there
// stands for one that is not; links are followed before the kernel looks.
func TestExisting(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink(dir, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	got, err := existing([]string{filepath.Join(dir, "a", "b"), dir, filepath.Join(dir, "link"), "/dev/null"})
	if want := []string{"/dev/null", dir}; err != nil || strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	for _, place := range []string{"/", "/nonexistent", "/nonexistent/deeper", "/proc/self/root"} {
		if got, err := existing([]string{dir, place}); !control.Is(err, control.InputFile) {
			t.Errorf("%s: got %q, %v", place, got, err)
		}
	}
}
