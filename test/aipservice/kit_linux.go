// SPDX-License-Identifier: Apache-2.0

package aipservice

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyferry/test/scripttest"
)

var prompt = regexp.MustCompile(`(?:Password of|type that of) (\S+?\.xml)`)

// RunKit runs the script of a hand-over kit on a terminal, where a person types the
// passwords. It returns what the terminal shows, and the script's exit code.
func (m *Module) RunKit(dir string, password func(file string) string, settings ...string) (shown string, code int) {
	m.t.Helper()
	cmd := exec.CommandContext(m.t.Context(), m.Path(settings...), "-NoProfile", "-ExecutionPolicy", "RemoteSigned", "-File", filepath.Join(dir, "import-tpds.ps1"))
	cmd.Dir, cmd.Env = m.t.TempDir(), append(os.Environ(), "TERM=dumb", "TMPDIR="+m.t.TempDir())
	return Typed(m.t, cmd, "\x1b[6n", password)
}

// Typed runs a command that runs the script of a kit, on a terminal, where a person
// types each password once the sign is shown behind its prompt.
func Typed(t testing.TB, cmd *exec.Cmd, sign string, password func(file string) string) (shown string, code int) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	person, terminal, err := scripttest.OpenTerminal()
	check(err)
	defer person.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	check(cmd.Start())
	check(terminal.Close())
	hangs := time.AfterFunc(2*time.Minute, func() { cmd.Process.Kill() })
	defer hangs.Stop()
	// The terminal answers where its cursor is, each time that it is asked. PowerShell
	// asks so behind a prompt, and only then reads without an echo.
	const whereIs, here = "\x1b[6n", "\x1b[1;1R"
	answered, typed := 0, 0
	for buf := make([]byte, 1024); ; {
		n, err := person.Read(buf)
		shown += string(buf[:n])
		for ; err == nil && answered < strings.Count(shown, whereIs); answered++ {
			_, err = person.WriteString(here)
		}
		asked := prompt.FindAllStringSubmatchIndex(shown, -1)
		if err == nil && len(asked) > typed && strings.Contains(shown[asked[typed][1]:], sign) {
			_, err = person.WriteString(password(shown[asked[typed][2]:asked[typed][3]]) + "\r")
			typed++
		}
		if err != nil { // EIO: nobody has the terminal open any more
			break
		}
	}
	exit := new(exec.ExitError)
	if err := cmd.Wait(); !errors.As(err, &exit) {
		check(err)
	}
	return strings.ReplaceAll(shown, "\r", ""), cmd.ProcessState.ExitCode()
}
