// SPDX-License-Identifier: Apache-2.0

package scripttest

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// typed runs a command on a terminal of its own, waits for each of the prompts,
// which have | between them, and types the line of a file that is for it, as a
// person would. It fails when the terminal shows what was typed.
func typed(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 3 {
		ts.Fatalf("usage: [!] typed PROMPT[|PROMPT…] FILE COMMAND…")
	}
	prompts, answers := strings.Split(args[0], "|"), strings.Split(strings.TrimRight(ts.ReadFile(args[1]), "\n"), "\n")
	if len(prompts) != len(answers) {
		ts.Fatalf("%d prompts, but %d answers", len(prompts), len(answers))
	}
	person, terminal, err := OpenTerminal()
	ts.Check(err)
	defer person.Close()
	cmd := exec.Command(args[2], args[3:]...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = append(os.Environ(), "KEYFERRY_STATE="+ts.Getenv("KEYFERRY_STATE"), "SOFTHSM2_CONF="+ts.Getenv("SOFTHSM2_CONF"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, ts.Stdout(), ts.Stderr()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	ts.Check(cmd.Start())
	terminal.Close()
	shown := converse(person, prompts, answers)
	err = cmd.Wait()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		ts.Check(err)
	}
	ts.Logf("[terminal]\n%s", shown)
	for i, prompt := range prompts {
		if strings.Count(shown, prompt) != 1 {
			ts.Fatalf("the terminal asked %q %d times, want once", prompt, strings.Count(shown, prompt))
		}
		if strings.Contains(shown, answers[i]) {
			ts.Fatalf("the terminal shows what was typed")
		}
	}
	if (err != nil) != neg {
		ts.Fatalf("the command ended with: %v", err)
	}
}

// converse reads what the terminal shows to its end, and answers each prompt when
// it comes.
func converse(person *os.File, prompts, answers []string) string {
	var shown strings.Builder
	answered := 0
	for buf := make([]byte, 1024); ; {
		n, err := person.Read(buf)
		shown.Write(buf[:n])
		for ; err == nil && answered < len(prompts) && strings.Contains(shown.String(), prompts[answered]); answered++ {
			_, err = person.WriteString(answers[answered] + "\n")
		}
		if err != nil { // EIO: nobody has the terminal open any more
			return shown.String()
		}
	}
}

// OpenTerminal returns the two ends of a new pseudo-terminal.
func OpenTerminal() (person, terminal *os.File, err error) {
	person, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	fd := int(person.Fd())
	if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err == nil {
		var n uint32
		if n, err = unix.IoctlGetUint32(fd, unix.TIOCGPTN); err == nil {
			terminal, err = os.OpenFile("/dev/pts/"+strconv.FormatUint(uint64(n), 10), os.O_RDWR|unix.O_NOCTTY, 0)
		}
	}
	if err != nil {
		person.Close()
		return nil, nil, err
	}
	return person, terminal, nil
}
