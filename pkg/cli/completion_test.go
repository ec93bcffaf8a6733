// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"keyferry/test/judges"
)

// completing is a program with commands of one and of two words.
func completing(t *testing.T, shell string) string {
	t.Helper()
	setup := func(flag string) func(*pflag.FlagSet) Run {
		return func(flags *pflag.FlagSet) Run {
			flags.String(flag, "", "")
			return func(context.Context, *IO, []string) error { return nil }
		}
	}
	app := &App{Name: "offline", Summary: "offline: a test", Commands: []Command{
		{Name: "import", Setup: setup("tpd-file-path")},
		{Name: "inspect", Setup: setup("protection-password")},
		{Name: "packages verify", Setup: setup("exchange-key-package")},
		{Name: "transcript", Setup: setup("sheet")},
		{Name: "transcript verify", Setup: setup("strict")},
	}}
	var out, errs strings.Builder
	if code := app.Run(t.Context(), []string{"completion", shell}, nil, &out, &errs); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs.String())
	}
	return out.String()
}

// completions are lines as typed, and what completes their last word.
var completions = []struct{ line, want string }{
	{"offline ", "import inspect packages transcript"},
	{"offline in", "inspect"},
	{"offline packages ", "verify"},
	{"offline import --", "--clock-is-right --json --rehearsal --state --tpd-file-path --verbose --yes"},
	{"offline packages verify --ex", "--exchange-key-package"},
	{"offline transcript --s", "--sheet --state"},
	{"offline transcript verify --st", "--state --strict"},
}

func TestCompletionInShells(t *testing.T) {
	for shell, args := range map[string][]string{"bash": {"--norc"}, "zsh": {"-f"}} {
		t.Run(shell, func(t *testing.T) {
			if _, err := exec.LookPath(shell); err != nil {
				t.Skip(err)
			}
			script := completing(t, shell)
			if shell == "zsh" {
				script = "autoload -U compinit && compinit -u -D\n" + script
			}
			for _, c := range completions {
				if shell == "zsh" { // its compgen works where a key was pressed
					break
				}
				words := strings.Split(c.line, " ")
				ask := script + "\nCOMP_WORDS=('" + strings.Join(words, "' '") + "')\nCOMP_CWORD=" + strconv.Itoa(len(words)-1) + "\n_offline\nprintf '%s\\n' \"${COMPREPLY[@]}\" | sort"
				checkCompletion(t, c.line, c.want, exec.Command(shell, append(args, "-c", ask)...))
			}
			out, err := exec.Command(shell, append(args, "-c", script)...).CombinedOutput()
			if err != nil || len(out) > 0 {
				t.Errorf("the script does not load: %v %s", err, out)
			}
		})
	}
}

func TestCompletionInPowerShell(t *testing.T) {
	shell := judges.PowerShell(t)
	path := filepath.Join(t.TempDir(), "completion.ps1")
	if err := os.WriteFile(path, []byte(completing(t, "powershell")), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range completions {
		if strings.HasSuffix(c.line, " ") {
			continue // PowerShell passes no word then, and completes the line as a whole
		}
		ask := ". '" + path + "'; (TabExpansion2 -inputScript '" + c.line + "' -cursorColumn " + strconv.Itoa(len(c.line)) + ").CompletionMatches.CompletionText"
		checkCompletion(t, c.line, c.want, exec.Command(shell, "-NoProfile", "-NonInteractive", "-Command", ask))
	}
}

func checkCompletion(t *testing.T, line, want string, cmd *exec.Cmd) {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if got := strings.Join(strings.Fields(string(out)), " "); err != nil || got != want {
		t.Errorf("%q: got %q (%v), want %q", line, got, err, want)
	}
}

// The manual page is one that man's own formatter takes without a warning.
func TestManualPage(t *testing.T) {
	if _, err := exec.LookPath("groff"); err != nil {
		t.Skip(err)
	}
	var page, errs strings.Builder
	testApp(does(nil).setup).Run(t.Context(), []string{"man"}, nil, &page, &errs)
	cmd := exec.Command("groff", "-man", "-Tutf8", "-ww")
	cmd.Stdin = strings.NewReader(page.String())
	var warnings strings.Builder
	cmd.Stderr = &warnings
	out, err := cmd.Output()
	if err != nil || warnings.Len() > 0 || !strings.Contains(string(out), "offline") {
		t.Errorf("%v\n%s\n%s", err, warnings.String(), out)
	}
}
