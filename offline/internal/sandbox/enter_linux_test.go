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
		held, err = Enter(Limits{Writable: []string{os.Getenv(writable)}, Network: os.Getenv(network) != ""})
	}
	if err == nil && what == "held" {
		fmt.Print(held)
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
	"a child dials":    func() error { return command(os.Getenv("PROBE"), "socket") },
	"a child in x32":   func() error { return command(os.Getenv("PROBE"), "x32") },
	"a child in i386":  func() error { return command(os.Getenv("PROBE"), "i386") },
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

func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
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
	out, err := cmd.CombinedOutput()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
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
	if got := run(t, "held", network+"=1"); !strings.HasPrefix(got, "sockets: of any kind can be opened\nfiles: can be written only in /") {
		t.Errorf("it says %q", got)
	}
}

func TestHeld(t *testing.T) {
	needSandbox(t)
	got := run(t, "held")
	if !strings.HasPrefix(got, "sockets: none can be opened but unix ones (seccomp)\nfiles: can be written only in /") || !strings.Contains(got, "/place") {
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

// A child in C can no more than we can, and no other architecture's calls help
// it: the kernel ends it.
func TestChildren(t *testing.T) {
	needSandbox(t)
	if runtime.GOARCH != "amd64" {
		t.Skip("the C program speaks amd64")
	}
	probe := filepath.Join(t.TempDir(), "probe")
	if out, err := exec.Command("gcc", "-o", probe, filepath.Join("testdata", "probe.c")).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	env := "PROBE=" + probe
	for what, want := range map[string]string{
		"a child dials":   "socket: Operation not permitted",
		"a child in x32":  "signal: bad system call",
		"a child in i386": "signal: bad system call",
	} {
		if got := run(t, what, env); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	if out, err := exec.Command(probe, "socket").CombinedOutput(); err != nil {
		t.Errorf("outside: %v %s", err, out)
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
