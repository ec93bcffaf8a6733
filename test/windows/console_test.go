// SPDX-License-Identifier: Apache-2.0

package windows

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keyferry/test/scripttest"
)

// keys are typed when a prompt is there.
type keys struct{ prompt, typed string }

const ctrlC = "\x03"

// at runs a command at a console, and types.
func (m *machine) at(cmd *exec.Cmd, person ...keys) (code int, shown string) {
	m.Helper()
	console, terminal, err := scripttest.OpenTerminal()
	m.must(err)
	defer console.Close()
	m.must(unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 60, Col: 400})) // so that no line is broken
	cmd.Env = append(m.env, "WINEDEBUG=-all")                                                           // which would be shown there
	cmd.Stdin, cmd.Stdout, cmd.Stderr = terminal, terminal, terminal
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	m.must(cmd.Start())
	m.must(terminal.Close())
	hangs := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer hangs.Stop()
	read := 0
	for buf := make([]byte, 4096); ; {
		n, err := console.Read(buf)
		shown += string(buf[:n])
		for err == nil && len(person) > 0 && strings.Contains(shown[read:], person[0].prompt) {
			read += strings.Index(shown[read:], person[0].prompt) + len(person[0].prompt)
			for range 1000 { // Wine takes the terminal over when the program reads: some moments after its prompt
				mode, err := unix.IoctlGetTermios(int(console.Fd()), unix.TCGETS)
				if err != nil || mode.Lflag&unix.ICANON == 0 {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
			time.Sleep(500 * time.Millisecond) // and it drops what was typed before
			_, err = console.WriteString(person[0].typed)
			person = person[1:]
		}
		if err != nil { // EIO: nobody has the console open any more
			break
		}
	}
	if exit := new(exec.ExitError); !errors.As(cmd.Wait(), &exit) && cmd.ProcessState == nil {
		m.Fatal("no exit code")
	}
	if len(person) > 0 {
		m.Errorf("%q was never asked:\n%s", person[0].prompt, shown)
	}
	return cmd.ProcessState.ExitCode(), shown
}

// careless runs a command line of Windows in a console that an earlier program has
// spoilt, and returns how it asked and how it ended. event is type, break, close, mintty
// or ise.
func (m *machine) careless(event, dir, line string, person ...keys) (told, shown string) {
	m.Helper()
	program := `C:\console.exe`
	if event == "ise" { // which is known by its name
		event, program = "type", `C:\powershell_ise.exe`
	}
	if _, err := os.Stat(m.unix(program)); err != nil {
		m.local(compiler, "-municode", "-o", m.unix(program), filepath.Join("testdata", "console.c"))
	}
	m.must(os.RemoveAll(m.unix(`C:\told`)))
	cmd := exec.Command(wine, program, event, `C:\told`, line)
	cmd.Dir = dir
	code, shown := m.at(cmd, person...)
	text, err := os.ReadFile(m.unix(`C:\told`))
	if err != nil || code != 0 {
		m.Fatalf("%v, exit code %d:\n%s", err, code, shown)
	}
	return strings.ReplaceAll(string(text), "\r", ""), shown
}

// TestConsole: a secret is typed whatever an earlier program has made of the console,
// with letters outside of its code page; Ctrl-C, Ctrl-Break and the closing of the window
// end the program cleanly, and the console is as it was. A window that only looks like a
// console is refused, since nobody would ever answer.
func TestConsole(t *testing.T) {
	m := newMachine(t)
	m.copy("../../testdata/vectors/tpd/contoso-legacy-kdf.xml", "tpd.xml")
	const password, ended = "Pässw0rd!", "it asks in secret\nit ended with 4, the console is as it was\n"
	line := `"` + `Z:` + strings.ReplaceAll(filepath.Join(m.bin, "offline.exe"), "/", `\`) + `" inspect tpd.xml`
	for _, test := range []struct{ event, typed, told, says string }{
		{"type", password + "\r", "it asks in secret\nit ended with 0, the console is as it was\n", "can become an HSM key"},
		{"type", "P\u00e4" + ctrlC, ended, "KF-RUN-INTERRUPTED"},
		{"break", "", ended, "KF-RUN-INTERRUPTED"},
		{"close", "", ended, "KF-RUN-INTERRUPTED"},
	} {
		told, shown := m.careless(test.event, m.dir, line, keys{"password:", test.typed})
		if told != test.told || !strings.Contains(shown, test.says) || strings.Contains(shown, "Pä") {
			t.Errorf("%s %q: %s%s", test.event, test.typed, told, shown)
		}
	}
	for event, window := range map[string]string{"mintty": "this window (mintty)", "ise": "PowerShell ISE"} {
		told, shown := m.careless(event, m.dir, line)
		if !strings.Contains(told, "it ended with 3,") || !strings.Contains(shown, window+" is no console") || !strings.Contains(shown, "winpty") {
			t.Errorf("%s: %s%s", event, told, shown)
		}
	}
}
