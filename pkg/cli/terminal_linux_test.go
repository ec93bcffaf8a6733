// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
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
		stuck, crashes, talks := flags.Bool("stuck", false, ""), flags.Bool("crashes", false, ""), flags.Bool("talks", false, "")
		return func(ctx context.Context, io *IO, _ []string) error {
			if *crashes {
				panic("hunter2")
			}
			for i := 0; *talks; i++ {
				io.Print(strings.Repeat("x", 1<<16))
				if io.Note("talked"); i == 100 {
					return io.Result(nil, "done")
				}
			}
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
	x.t.Helper()
	late := time.AfterFunc(time.Minute, func() { x.child.Process.Kill() }) // exit code -1
	defer late.Stop()
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
		} else if strings.Contains(screen, "\x1b") {
			t.Errorf("an escape sequence is on the screen, where no colour is: %q", screen)
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

// Quit key, hang-up and the request to end do as the interrupt key does: no
// stack is dumped, and no exit code says "usage".
func TestSignalsAtThePassword(t *testing.T) {
	for name, send := range map[string]func(x *terminal){
		"the quit key": func(x *terminal) { x.types("hunt\x1c") },
		"hang-up":      func(x *terminal) { x.child.Process.Signal(syscall.SIGHUP) },
		"end":          func(x *terminal) { x.child.Process.Signal(syscall.SIGTERM) },
	} {
		if name == "hang-up" && signal.Ignored(syscall.SIGHUP) {
			t.Log("hang-up is ignored here, as under nohup, and so it is by the programs that are started")
			continue
		}
		x := openTerminal(t)
		x.untilShows("password: ")
		x.until("the echo is off", func() bool { return !x.echoes() })
		send(x)
		if code := x.ends(); code != int(control.Interrupted.Class) {
			t.Errorf("%s: exit code %d", name, code)
		}
		x.untilShows("[" + control.Interrupted.ID + "]")
		if !x.echoes() || strings.Contains(x.seen(), "goroutine") || strings.Contains(x.seen(), "hunt") {
			t.Errorf("%s: echo %t, screen %q", name, x.echoes(), x.seen())
		}
	}
}

func (x *terminal) stopped() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", x.child.Process.Pid))
	_, state, _ := strings.Cut(string(stat), ") ")
	return err == nil && strings.HasPrefix(state, "T")
}

// The suspend key gives the terminal back as it was; once the program goes on, it
// asks again and hides what is typed, whatever the shell did to the terminal.
func TestSuspendedAtThePassword(t *testing.T) {
	for name, suspend := range map[string]func(x *terminal){
		"the suspend key": func(x *terminal) {
			x.types("hunt\x1a")
			x.until("it is suspended", x.stopped)
			if !x.echoes() {
				t.Error("the echo is off while it is suspended")
			}
		},
		"a stop": func(x *terminal) {
			x.child.Process.Signal(syscall.SIGSTOP)
			x.until("it is suspended", x.stopped)
			settings, err := unix.IoctlGetTermios(int(x.slave.Fd()), unix.TCGETS)
			if err != nil {
				t.Fatal(err)
			}
			settings.Lflag |= unix.ECHO // as a shell does
			if err := unix.IoctlSetTermios(int(x.slave.Fd()), unix.TCSETS, settings); err != nil {
				t.Fatal(err)
			}
		},
	} {
		x := openTerminal(t)
		x.untilShows("password: ")
		x.until("the echo is off", func() bool { return !x.echoes() })
		suspend(x)
		x.child.Process.Signal(syscall.SIGCONT)
		x.until("it asks again", func() bool { return strings.Count(x.seen(), "password: ") == 2 && !x.echoes() })
		x.types("hunter2\n")
		x.untilShows("answer Yes to go on: ")
		x.child.Process.Signal(syscall.SIGSTOP)
		x.until("it is suspended", x.stopped)
		x.child.Process.Signal(syscall.SIGCONT)
		x.until("it asks again", func() bool { return strings.Count(x.seen(), "answer Yes to go on: ") == 2 })
		x.types("Yes\n")
		if code := x.ends(); code != 0 || x.stdout.String() != fmt.Sprintf("%x\n", "hunter2") {
			t.Errorf("%s: exit code %d, stdout %q", name, code, x.stdout.String())
		}
		if !x.echoes() || strings.Contains(x.seen(), "hunt") {
			t.Errorf("%s: echo %t, screen %q", name, x.echoes(), x.seen())
		}
	}
}

// A console of another encoding is named: the hint is not about a file.
func TestLatin1Console(t *testing.T) {
	x := openTerminal(t)
	x.untilShows("password: ")
	x.until("the echo is off", func() bool { return !x.echoes() })
	x.types("B\xfcro\n")
	if code := x.ends(); code != int(control.SecretEmpty.Class) {
		t.Errorf("exit code %d", code)
	}
	x.untilShows("set the terminal to UTF-8")
}

// A crash shows nothing of the memory, and does not end as wrong usage does.
func TestCrash(t *testing.T) {
	x := openTerminal(t, "--crashes")
	if code := x.ends(); code != int(control.Interrupted.Class) {
		t.Errorf("exit code %d", code)
	}
	x.untilShows("the program failed: string in keyferry/pkg/cli.TestMain")
	if strings.Contains(x.seen(), "goroutine") || strings.Contains(x.seen(), "hunter2") {
		t.Errorf("screen %q", x.seen())
	}
}

// A reader that closes its end early does not stop what is under way.
func TestOutputClosedEarly(t *testing.T) {
	cmd := exec.Command("sh", "-c", `("$0" test --talks 2>&1; echo "ended $?" >&3) 3>"$1" | head -c 1`, os.Args[0], t.TempDir()+"/ended")
	cmd.Env = append(os.Environ(), childVariable+"=1", "KEYFERRY_STATE=/state")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	if got, err := os.ReadFile(cmd.Args[len(cmd.Args)-1]); err != nil || string(got) != "ended 0\n" {
		t.Errorf("got %q, %v", got, err)
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
	if code != int(control.Interrupted.Class) {
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
