// SPDX-License-Identifier: Apache-2.0

package windows

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keyferry/test/judges"
)

// The script of the release's archive plays the ceremony: whole, and the connected
// side alone against the recorded bundle. PowerShell's engine is a real one; the
// programs beside the script are those of this system, under the names of Windows'.
func TestRehearseScript(t *testing.T) {
	powershell := judges.PowerShell(t)
	archive := filepath.Join(t.TempDir(), "keyferry windows")
	if err := os.MkdirAll(filepath.Join(archive, "sample"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, side := range []string{"offline", "online"} {
		program, err := exec.LookPath(side)
		if err == nil {
			err = os.Symlink(program, filepath.Join(archive, side+".exe"))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	unpack(t, archive)
	if out, err := exec.Command("chmod", "-R", "go=", archive).CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	for name, flags := range map[string]string{"whole": "", "connected side": "-Online"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "spielt für sich")
			// Windows has access lists, this system modes: here they are what the shell says.
			cmd := exec.Command("sh", "-c", `umask 077; exec "$@"`, "sh", powershell, "-NoProfile", "-Command", "& '"+filepath.Join(archive, "rehearse.ps1")+"' "+flags+" -Dir '"+dir+"'; exit $LASTEXITCODE")
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "The rehearsal is over.") {
				t.Fatalf("%v\n%s", err, out)
			}
			if sheet, err := os.ReadFile(filepath.Join(dir, "sheet-online.txt")); err != nil || !strings.Contains(string(sheet), "contoso-slc") {
				t.Errorf("the sheet: %v", err)
			}
		})
	}
}

// unpack puts what the archive has beside the programs into a directory.
func unpack(t *testing.T, archive string) {
	t.Helper()
	for from, to := range map[string]string{"scripts/rehearse.ps1": "", "testdata/vectors/tpd/contoso-mode2.xml": "sample", "testdata/recorded": "sample"} {
		if out, err := exec.Command("cp", "-r", filepath.Join("..", "..", from), filepath.Join(archive, to)).CombinedOutput(); err != nil {
			t.Fatalf("%s", out)
		}
	}
}

// The same in Windows, with its own programs, the place of its own PowerShell, and
// SoftHSM's DLL.
func TestRehearseScriptInWindows(t *testing.T) {
	m := newMachine(t)
	m.powershell()
	m.softHSM()
	archive := m.unix(`C:\keyferry windows`)
	m.must(os.MkdirAll(filepath.Join(archive, "sample"), 0o700))
	unpack(t, archive)
	for _, name := range []string{"offline.exe", "online.exe"} {
		m.must(os.Link(filepath.Join(m.bin, name), filepath.Join(archive, name)))
	}
	for name, flags := range map[string]string{"whole": "-HsmModule '" + module + "'", "connected side": "-Online"} {
		t.Run(name, func(t *testing.T) {
			m.T = t
			dir := `C:\spielt für sich, ` + name
			cmd := exec.Command(wine, powershellExe, "-NoProfile", "-ExecutionPolicy", "Bypass", "-Command", `& '.\rehearse.ps1' `+flags+` -Dir '`+dir+`'; exit $LASTEXITCODE`)
			cmd.Dir = archive
			if code, said := m.finish(cmd); code != 0 || !strings.Contains(said, "The rehearsal is over.") {
				t.Fatalf("exit code %d\n%s", code, said)
			}
			if sheet, err := os.ReadFile(filepath.Join(m.unix(dir), "sheet-online.txt")); err != nil || !strings.HasPrefix(string(sheet), "\ufeff") || !strings.Contains(string(sheet), "contoso-slc") {
				t.Errorf("the sheet: %.80q, %v", sheet, err)
			}
		})
	}
}

// powershellExe is Windows' own, by its place.
const powershellExe = `C:\windows\system32\WindowsPowerShell\v1.0\powershell.exe`

// powershell puts a PowerShell there.
func (m *machine) powershell() {
	m.Helper()
	if out, err := exec.Command(judges.Find(m.T, "wine-powershell"), filepath.Join(m.bin, "prefix")).CombinedOutput(); err != nil {
		m.Fatalf("%v\n%s", err, out)
	}
	m.env = append(m.env, "DOTNET_EnableWriteXorExecute=0", "WINEDLLOVERRIDES=mshtml=", "TERM=xterm")
}
