// SPDX-License-Identifier: Apache-2.0

package tenant

import (
	"context"
	_ "embed"
	"encoding/base64"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"unicode/utf16"

	"keyferry/pkg/control"
)

// The scripts. The loader is all that stands on a command line; it reads the
// rest from standard input, up to a line #end.
var (
	//go:embed script/loader.ps1
	loader string
	//go:embed script/functions.ps1
	functions string
	//go:embed script/session.ps1
	sessionScript string
)

// minFramework is the release number of .NET Framework 4.8, which the module
// needs.
const minFramework = 528040

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
	}
	if major, _, _ := strings.Cut(v.Module, "."); atoi(major) < 3 {
		return control.RMSModule.Refuse("the AIPService module is of version %s, not 3.0.0.1 or later", control.Quote(v.Module)).
			WithHint("update it: Update-Module -Name AIPService, in Windows PowerShell 5.1")
	}
	return nil
}

// atoi is 0 for what is no number.
func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0
	}
	return n
}

// arguments of powershell.exe. The execution policy is of this process alone;
// it lets the module, which is signed, be loaded.
func arguments() []string {
	return []string{
		"-NoLogo", "-NoProfile", "-NonInteractive", "-ExecutionPolicy", "RemoteSigned",
		"-InputFormat", "Text", "-OutputFormat", "Text", "-EncodedCommand", encodedCommand(loader),
	}
}

// encodedCommand is base64 of UTF-16LE.
func encodedCommand(script string) string {
	var b []byte
	for _, unit := range utf16.Encode([]rune(script)) {
		b = binary.LittleEndian.AppendUint16(b, unit)
	}
	return base64.StdEncoding.EncodeToString(b)
}

// process is a running powershell.exe that has read the session's script.
type process struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout io.ReadCloser
	stderr tail
	once   sync.Once
	ended  error
}

// end closes the process's input, at which its script ends, and waits for it.
// After that all of its last words are in stderr.
func (p *process) end() error {
	p.once.Do(func() {
		err := p.stdin.Close()
		if _, drain := io.Copy(io.Discard, p.stdout); err == nil {
			err = drain
		}
		if wait := p.cmd.Wait(); err == nil {
			err = wait
		}
		p.ended = err
	})
	return p.ended
}

func startProcess(ctx context.Context, path string) (*process, error) {
	p := &process{cmd: exec.CommandContext(ctx, path, arguments()...)}
	p.cmd.Stderr = &p.stderr
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err == nil {
		if p.stdout, err = p.cmd.StdoutPipe(); err == nil {
			err = p.cmd.Start()
		}
	}
	if err != nil {
		return nil, control.RMSPowerShell.Refuse("Windows PowerShell does not start: %w", err)
	}
	return p, nil
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const maxTail = 4 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	t.text = t.text[max(0, len(t.text)-maxTail):]
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.text))
}
