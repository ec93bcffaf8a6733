// SPDX-License-Identifier: Apache-2.0

package tenant

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"keyferry/pkg/control"
)

// The scripts. The session's stand on the command line as they are, so that who
// watches the machine can read there all that is done: hence no double quote is
// in them, and they stay far below the 32,766 characters that a command line
// has on Windows.
var (
	//go:embed script/functions.ps1
	functions string
	//go:embed script/session.ps1
	sessionScript string
)

// The module needs .NET Framework 4.8, by its release number, and 3.0.0.1 is its
// first version that still signs in.
const (
	minFramework = 528040
	minModule    = "3.0.0.1"
)

// Versions are those of a Windows PowerShell that was found.
type Versions struct {
	PowerShell string `json:"powershell"` // such as 5.1.19041.4291
	Edition    string `json:"edition"`    // Desktop, or Core, which is not Windows PowerShell
	Framework  int    `json:"framework"`  // release number of the .NET Framework, 0 when there is none
	Module     string `json:"module"`     // of AIPService, empty when it is not installed
}

// FindPowerShell returns the path of Windows PowerShell's powershell.exe. That
// of PowerShell 7, pwsh.exe, is another program and does not do.
func FindPowerShell() (string, error) {
	if root := os.Getenv("SystemRoot"); root != "" {
		path := filepath.Join(root, "System32", "WindowsPowerShell", "v1.0", "powershell.exe")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath("powershell.exe")
	if err != nil {
		return "", control.RMSPowerShell.Refuse("there is no Windows PowerShell on this machine: %w", err)
	}
	return path, nil
}

// check refuses versions that the module does not run in.
func (v Versions) check() error {
	switch {
	case v.Edition != "Desktop" || v.PowerShell != "5.1" && !strings.HasPrefix(v.PowerShell, "5.1."):
		return control.RMSPowerShell.Refuse("this is PowerShell %s (%s), not Windows PowerShell 5.1", control.Quote(v.PowerShell), control.Quote(v.Edition))
	case v.Framework < minFramework:
		return control.RMSPowerShell.Refuse("the .NET Framework is of release %d, not %d (4.8) or later", v.Framework, minFramework)
	case v.Module == "":
		return control.RMSModule.Refuse("the AIPService module is not installed")
	case slices.Compare(numbers(v.Module), numbers(minModule)) < 0:
		return control.RMSModule.Refuse("the AIPService module is of version %s, not %s or later", control.Quote(v.Module), minModule).
			WithHint("update it: Update-Module -Name AIPService, in Windows PowerShell 5.1")
	}
	return nil
}

// numbers takes a version apart; what is no number counts as 0.
func numbers(version string) []int {
	var all []int
	for part := range strings.SplitSeq(version, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			n = 0
		}
		all = append(all, n)
	}
	return all
}

// arguments of powershell.exe. The execution policy is of this process alone;
// it lets the module, which is signed, be loaded.
func arguments() []string {
	return []string{
		"-NoLogo", "-NoProfile", "-NonInteractive", "-ExecutionPolicy", "RemoteSigned",
		"-InputFormat", "Text", "-OutputFormat", "Text", "-Command", functions + "\n" + sessionScript,
	}
}

// environment is this process's without PSModulePath: a PowerShell 7 further up
// has set it to its own modules, which are not those of 5.1, and without it
// Windows PowerShell makes its own.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return strings.EqualFold(name, "PSModulePath")
	})
}

// process is a running powershell.exe.
type process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *io.PipeReader
	stderr ends
	ended  chan struct{}
	err    error // how it ended, once ended is closed
}

// patience is for how long the output of a process that has ended is waited
// for: a helper that it left running may hold it open for ever.
const patience = 2 * time.Second

// startProcess starts powershell.exe, which ends with this process at the
// latest: it must not go on importing behind the back of the next run.
func startProcess(ctx context.Context, path string) (*process, error) {
	p := &process{cmd: exec.CommandContext(ctx, path, arguments()...), ended: make(chan struct{})}
	var stdout *io.PipeWriter
	p.stdout, stdout = io.Pipe()
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr, p.cmd.WaitDelay = environment(), stdout, &p.stderr, patience
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err == nil {
		started := make(chan error)
		go func() {
			defer close(p.ended)
			runtime.LockOSThread() // on Linux the process is bound to the thread that started it
			defer runtime.UnlockOSThread()
			release, err := startBound(p.cmd)
			started <- err
			if err != nil {
				return
			}
			if err := p.cmd.Wait(); !errors.Is(err, exec.ErrWaitDelay) {
				p.err = err
			}
			p.err = cmp.Or(p.err, release())
			stdout.Close()
		}()
		err = <-started
	}
	if err != nil {
		return nil, control.RMSPowerShell.Refuse("Windows PowerShell does not start: %w", err)
	}
	return p, nil
}

// end closes the process's input, at which its script ends, and waits for it.
// After that all of its last words are in stderr.
func (p *process) end() error {
	p.stdin.Close() // a process that has ended has closed it already
	if _, err := io.Copy(io.Discard, p.stdout); err != nil {
		return err
	}
	<-p.ended
	return p.err
}

// ends keeps the beginning and the end of what is written to it: a crash says why
// first, and then for long where.
type ends struct {
	mu   sync.Mutex
	text []byte
}

const maxEnd = 1 << 10

func (t *ends) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	if over := len(t.text) - 2*maxEnd; over > 0 {
		t.text = append(t.text[:maxEnd], t.text[maxEnd+over:]...)
	}
	return len(b), nil
}

func (t *ends) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.text))
}
