// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"keyferry/pkg/control"
)

// childVariable makes the test binary the program that runs on the terminal.
const childVariable = "CLI_TEST_CHILD"

// TestMain is the child as well: a program that asks for a password, then for
// a confirmation, and prints the password in hex; or one that is stuck.
func TestMain(m *testing.M) {
	if os.Getenv(childVariable) == "" {
		os.Exit(m.Run())
	}
	app := testApp(func(flags *pflag.FlagSet) Run {
		password := AddSecretFlags(flags, "password", "password", true)
		stuck := flags.Bool("stuck", false, "")
		return func(ctx context.Context, io *IO, _ []string) error {
			if *stuck {
				io.Note("stuck")
				select {}
			}
			secret, err := password.ReadOne(ctx, io)
			if err != nil {
				return err
			}
			if err := io.Confirm("Really?"); err != nil {
				return err
			}
			return io.Result(nil, fmt.Sprintf("%x", secret))
		}
	})
	os.Exit(app.Main())
}

// terminal is a pseudo-terminal with the child on it.
type terminal struct {
	t      *testing.T
	master *os.File
	slave  *os.File
	child  *exec.Cmd
	stdout strings.Builder

	mu     sync.Mutex
	screen strings.Builder // what the person sees
}

func openTerminal(t *testing.T, args ...string) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	x := &terminal{t: t, master: master, slave: slave}
	x.child = exec.Command(os.Args[0], append([]string{"test"}, args...)...)
	x.child.Env = append(os.Environ(), childVariable+"=1", "KEYFERRY_STATE=/state", "GORACE=atexit_sleep_ms=0")
	x.child.Stdin, x.child.Stdout, x.child.Stderr = slave, &x.stdout, slave
	x.child.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := x.child.Start(); err != nil {
		t.Fatal(err)
	}
	go x.watch()
	t.Cleanup(func() {
		x.child.Process.Kill() // in case the test gave up; else it has ended
		master.Close()
		slave.Close()
	})
	return x
}

func (x *terminal) watch() {
	for b := make([]byte, 256); ; {
		n, err := x.master.Read(b)
		x.mu.Lock()
		x.screen.Write(b[:n])
		x.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (x *terminal) seen() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.screen.String()
}

// until waits for what must come; the limit only ends a test that has failed.
func (x *terminal) until(what string, holds func() bool) {
	x.t.Helper()
	for range 3000 {
		if holds() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	x.t.Fatalf("waited in vain until %s; the screen shows %q", what, x.seen())
}

func (x *terminal) untilShows(text string) {
	x.t.Helper()
	x.until("the screen shows "+text, func() bool { return strings.Contains(x.seen(), text) })
}

func (x *terminal) echoes() bool {
	x.t.Helper()
	settings, err := unix.IoctlGetTermios(int(x.slave.Fd()), unix.TCGETS)
	if err != nil {
		x.t.Fatal(err)
	}
	return settings.Lflag&unix.ECHO != 0
}

func (x *terminal) types(text string) {
	x.t.Helper()
	if _, err := io.WriteString(x.master, text); err != nil {
		x.t.Fatal(err)
	}
}

// ends returns the child's exit code.
func (x *terminal) ends() int {
	x.child.Wait() // the exit code says it all
	return x.child.ProcessState.ExitCode()
}

func TestPasswordOnTheTerminal(t *testing.T) {
	for _, args := range [][]string{nil, {"--password"}} {
		x := openTerminal(t, args...)
		x.untilShows("password: ")
		x.until("the echo is off", func() bool { return !x.echoes() })
		x.types("hunter2 ä\n")
		x.untilShows("answer Yes to go on: ")
		if !x.echoes() {
			t.Error("the echo is off after the password")
		}
		x.types("Yes\n")
		code := x.ends()
		if got := x.stdout.String(); code != 0 || got != fmt.Sprintf("%x\n", "hunter2 ä") {
			t.Errorf("exit code %d, stdout %q", code, got)
		}
		x.untilShows("Yes\r\n") // what is typed at a question is echoed
		if screen := x.seen(); strings.Contains(screen, "hunter2") {
			t.Errorf("the password is on the screen: %q", screen)
		}
	}
}

// The interrupt key at the password prompt ends the program and brings the echo
// back.
func TestInterruptAtThePassword(t *testing.T) {
	x := openTerminal(t)
	x.untilShows("password: ")
	x.until("the echo is off", func() bool { return !x.echoes() })
	x.types("hunt\x03")
	if code := x.ends(); code != int(control.Interrupted.Class) {
		t.Errorf("exit code %d", code)
	}
	x.untilShows("error: interrupted before the password was given [" + control.Interrupted.ID + "]")
	if !x.echoes() {
		t.Error("the echo is off")
	}
	if x.stdout.Len() > 0 || strings.Contains(x.seen(), "hunt") {
		t.Errorf("stdout %q, screen %q", x.stdout.String(), x.seen())
	}
}

func TestInterruptAtTheConfirmation(t *testing.T) {
	x := openTerminal(t, "--password=x")
	x.untilShows("answer Yes to go on: ")
	x.types("Ye\x03")
	if code := x.ends(); code != int(control.Interrupted.Class) {
		t.Errorf("exit code %d", code)
	}
	x.untilShows(control.Interrupted.ID)
}

// What does not look for an interrupt, such as a read from a stick that hangs,
// ends by the second one.
func TestSecondInterrupt(t *testing.T) {
	x := openTerminal(t, "--stuck")
	x.untilShows("stuck")
	ended := make(chan int, 1)
	go func() { ended <- x.ends() }()
	code := 0
	x.until("it ends", func() bool {
		x.types("\x03")
		select {
		case code = <-ended:
			return true
		default:
			return false
		}
	})
	if code != -1 { // by the signal
		t.Errorf("exit code %d", code)
	}
}

func TestEmptyPasswordOnTheTerminal(t *testing.T) {
	x := openTerminal(t)
	x.untilShows("password: ")
	x.until("the echo is off", func() bool { return !x.echoes() })
	x.types("\n")
	if code := x.ends(); code != int(control.SecretEmpty.Class) {
		t.Errorf("exit code %d", code)
	}
	x.untilShows(control.SecretEmpty.ID)
}

// Without a terminal there is nobody to ask: a session of its own has none.
func TestNoTerminal(t *testing.T) {
	cmd := exec.Command(os.Args[0], "test")
	cmd.Env = append(os.Environ(), childVariable+"=1", "KEYFERRY_STATE=/state")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Stdin = strings.NewReader("hunter2\nYes\n")
	out, err := cmd.CombinedOutput()
	if err == nil || cmd.ProcessState.ExitCode() != int(control.NoTerminal.Class) || !strings.Contains(string(out), control.NoTerminal.ID) {
		t.Errorf("got %v, %s", err, out)
	}
}
